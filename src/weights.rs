//! The bytes of the weight buffers: mapped from the checkpoint, or computed from it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use anyhow::{Context, Result};
use rwkvc_frontend::model::Model;
use rwkvc_ir::DType;
use rwkvc_ir::graph::Graph;
use rwkvc_ir::graph::eval::eval_const;
use rwkvc_ir::quantized::GROUP;
use rwkvc_passes::plan::{Plan, Source, Weight};
use rwkvc_passes::storage::{Layout, Packed, Packing};
use rwkvc_runtime::{Buffer, SharedBytes, WeightData};

/// A weight of a model that stays where the checkpoint is mapped.
struct Stored {
    model: Arc<Model>,
    name: String,
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        self.model.weight(&self.name).map_or(&[], |w| w.bytes)
    }
}

/// The weight buffers of a plan, in its order.
///
/// # Errors
/// If a weight is not there, cannot be computed, or there is no memory for it.
pub fn weights(model: &Arc<Model>, plan: &Plan) -> Result<Vec<WeightData>> {
    // The parts of quantised matrices that nobody has taken yet, by the buffer with the codes.
    let mut packed: HashMap<usize, Packed> = HashMap::new();
    let mut all = vec![];
    for (i, weight) in plan.weights.iter().enumerate() {
        all.push(match weight.layout {
            Layout::RowMajor => as_stored(model, weight)?,
            Layout::Panels { .. } => {
                let mut arranged = Buffer::zeroed(weight.bytes())?;
                let data = as_stored(model, weight)?;
                let rows = data.bytes().context("the bytes of a weight")?;
                weight.arrange(rows, arranged.bytes_mut());
                arranged.into()
            }
            Layout::Packed {
                packing,
                matrix,
                part,
            } => {
                let codes = weight.codes.unwrap_or(i);
                if let Entry::Vacant(place) = packed.entry(codes) {
                    place.insert(quantized(model, weight, packing, matrix)?);
                }
                let parts = packed
                    .get_mut(&codes)
                    .context("the parts of a quantised weight")?;
                let bytes = std::mem::take(parts.part(part));
                Buffer::copy_of(&bytes)?.into()
            }
        });
    }
    Ok(all)
}

/// Quantises a weight.
fn quantized(model: &Arc<Model>, weight: &Weight, packing: Packing, matrix: [usize; 2]) -> Result<Packed> {
    if let Source::Stored(name) = &weight.source
        && let Some(blocks) = model.quantised(name)
        && blocks.format().groups() == Some(packing.format)
        && !packing.columns
    {
        let per_row = matrix[1] / GROUP;
        let nothing = packing.format.encode(&[0.0; GROUP]);
        return Ok(packing.pack_groups(matrix, &|row, i| {
            blocks.group(row * per_row + i).unwrap_or(nothing)
        }));
    }
    let stored;
    let computed;
    let (dtype, bytes) = match &weight.source {
        Source::Stored(name) => {
            stored = model
                .weight(name)
                .with_context(|| format!("there is no weight `{name}`"))?;
            (stored.dtype, stored.bytes)
        }
        Source::Computed(graph) => {
            computed = self::computed(model, graph, DType::F32)?;
            (DType::F32, computed.bytes())
        }
    };
    Ok(packing.pack(matrix, dtype, bytes))
}

/// A weight row by row.
fn as_stored(model: &Arc<Model>, weight: &Weight) -> Result<WeightData> {
    match &weight.source {
        Source::Stored(name) => {
            let shared: SharedBytes = Arc::new(Stored {
                model: Arc::clone(model),
                name: name.clone(),
            });
            let bytes = (*shared).as_ref();
            if bytes.as_ptr().align_offset(weight.dtype.size()) != 0 {
                // Older .pth files put their storages anywhere; kernels load whole elements.
                return Ok(Buffer::copy_of(bytes)?.into());
            }
            let range = 0..bytes.len();
            let is_mapped = model.weight(name).is_some_and(|w| w.is_mapped);
            // SAFETY: a model never changes and lives as long as the `Arc` in `Stored`, so its weights stay in place. It says
            // itself whether they are mapped from its file, which is only read.
            Ok(unsafe {
                match is_mapped {
                    true => WeightData::shared_mapping(shared, range),
                    false => WeightData::shared(shared, range),
                }
            })
        }
        Source::Computed(graph) => Ok(computed(model, graph, weight.dtype)?.into()),
    }
}

/// Evaluates a value that depends only on weights and rounds it to its format.
fn computed(model: &Model, graph: &Graph, dtype: DType) -> Result<Buffer> {
    let value = graph.output("value").context("a weight without a value")?;
    let values = eval_const(graph, value, model)
        .context("computing a weight")?
        .into_values();
    let mut buffer = Buffer::zeroed((values.len() * dtype.size()) as u64)?;
    if dtype == DType::F32 {
        buffer.floats_mut().copy_from_slice(&values);
    } else {
        for (i, value) in values.into_iter().enumerate() {
            dtype.write(buffer.bytes_mut(), i, f64::from(value));
        }
    }
    Ok(buffer)
}
