//! Buffers, positions in them, loads and stores.

use inkwell::context::Context;
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::{BasicValue, BasicValueEnum, InstructionValue, IntValue, MetadataValue, PointerValue};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::{Affine, Buf, Kernel, Reg};

use crate::divisibility::zeros_of;
use crate::emitter::{Emitter, Fault, lanes_of};
use crate::form::Form;
use crate::gpu;

/// Where a buffer is.
pub(crate) struct Place<'c> {
    pub(crate) base: PointerValue<'c>,
    /// What the base is a multiple of, in bytes, as far as that matters: a power of two.
    pub(crate) align: u32,
    /// Whether nothing writes to it while the function runs.
    pub(crate) constant: bool,
}

/// A place that holds elements.
pub(crate) struct Buffer<'c> {
    place: Place<'c>,
    dtype: DType,
    aliasing: Option<Aliasing<'c>>,
}

/// What accesses to a parameter overlap with: those to the same parameter only.
struct Aliasing<'c> {
    /// The list of its own scope.
    own: MetadataValue<'c>,
    /// The list of the scopes of all other parameters.
    others: MetadataValue<'c>,
}

/// How elements lie in memory. LLVM's type of bf16 is not used: it has no cheap conversions.
pub(crate) fn storage_type(context: &Context, dtype: DType) -> BasicTypeEnum<'_> {
    match dtype {
        DType::F32 => context.f32_type().into(),
        DType::F16 => context.f16_type().into(),
        DType::BF16 => context.i16_type().into(),
        DType::I32 => context.i32_type().into(),
        DType::I8 => context.i8_type().into(),
    }
}

/// The parameters and the locals, given where they are.
pub(crate) fn buffers<'c>(kernel: &Kernel, context: &'c Context, places: Vec<Place<'c>>) -> Vec<Buffer<'c>> {
    let params = kernel.params.iter().map(|p| p.dtype);
    let dtypes = params.chain(kernel.locals.iter().map(|l| l.dtype));
    let aliasing = aliasing(kernel, context).into_iter().map(Some);
    places
        .into_iter()
        .zip(dtypes)
        .zip(aliasing.chain(std::iter::repeat_with(|| None)))
        .map(|((place, dtype), aliasing)| Buffer {
            place,
            dtype,
            aliasing,
        })
        .collect()
}

/// One scope for each parameter.
fn aliasing<'c>(kernel: &Kernel, context: &'c Context) -> Vec<Aliasing<'c>> {
    let domain = context.metadata_node(&[context.metadata_string(&kernel.name).into()]);
    let scope = |name: &str| {
        let name = context.metadata_string(&format!("{}.{name}", kernel.name));
        context.metadata_node(&[name.into(), domain.into()])
    };
    let scopes: Vec<MetadataValue<'c>> = kernel.params.iter().map(|p| scope(&p.name)).collect();
    let list = |scopes: &mut dyn Iterator<Item = MetadataValue<'c>>| {
        context.metadata_node(&scopes.map(Into::into).collect::<Vec<_>>())
    };
    (0..scopes.len())
        .map(|i| {
            let others = scopes[..i].iter().chain(&scopes[i + 1..]);
            Aliasing {
                own: list(&mut std::iter::once(scopes[i])),
                others: list(&mut others.copied()),
            }
        })
        .collect()
}

impl<'c> Emitter<'_, '_, 'c> {
    /// The terms of an index. What changes in outer loops comes first, so that its sum can stay there.
    fn terms(&self, at: &Affine) -> Result<Vec<IntValue<'c>>, Fault> {
        let mut terms: Vec<(Reg, i64)> = at
            .terms
            .iter()
            .copied()
            .filter(|(_, factor)| *factor != 0)
            .collect();
        terms.sort_by_key(|&(reg, _)| self.depth_of(reg));
        let product =
            |&(reg, factor): &(Reg, i64)| Ok(self.b.build_int_mul(self.int(reg)?, self.index(factor), "")?);
        terms.iter().map(product).collect()
    }

    /// The value of an affine index.
    pub(crate) fn affine(&self, at: &Affine) -> Result<IntValue<'c>, Fault> {
        let mut sum = self.index(0);
        for term in self.terms(at)? {
            sum = self.b.build_int_add(sum, term, "")?;
        }
        Ok(self.b.build_int_add(sum, self.index(at.offset), "")?)
    }

    /// The address of an element.
    fn place(&self, buf: Buf, at: &Affine) -> Result<PointerValue<'c>, Fault> {
        let buffer = &self.buffers[buf.0 as usize];
        let element = storage_type(self.context, buffer.dtype);
        let mut place = buffer.place.base;
        for term in self.terms(at)?.into_iter().chain([self.index(at.offset)]) {
            // SAFETY: an address of one type and one index is what LLVM expects.
            place = unsafe { self.b.build_gep(element, place, &[term], "")? };
        }
        Ok(place)
    }

    /// What an address is surely a multiple of, in bytes.
    fn alignment(&self, buf: Buf, at: &Affine) -> u32 {
        let buffer = &self.buffers[buf.0 as usize];
        let bytes = 1_u64 << zeros_of(at, &self.zeros).min(16);
        (bytes * buffer.dtype.size() as u64).min(u64::from(buffer.place.align)) as u32
    }

    /// Says what is known of a load or store.
    fn annotate(&self, access: InstructionValue<'c>, buf: Buf, at: &Affine) -> Result<(), Fault> {
        access.set_alignment(self.alignment(buf, at))?;
        if let Some(Aliasing { own, others }) = self.buffers[buf.0 as usize].aliasing {
            access.set_metadata(own, self.context.get_kind_id("alias.scope"))?;
            access.set_metadata(others, self.context.get_kind_id("noalias"))?;
        }
        Ok(())
    }

    /// Consecutive elements as lanes.
    pub(crate) fn load(&self, buf: Buf, at: &Affine, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        let dtype = self.buffers[buf.0 as usize].dtype;
        let value = self.load_as(storage_type(self.context, dtype), buf, at, lanes)?;
        self.widen(dtype, value, lanes)
    }

    /// What lies at an element, as lanes of some type.
    fn load_as(
        &self,
        scalar: BasicTypeEnum<'c>,
        buf: Buf,
        at: &Affine,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        let value = self
            .b
            .build_load(lanes_of(scalar, lanes), self.place(buf, at)?, "")?;
        if let Some(load) = value.as_instruction_value() {
            self.annotate(load, buf, at)?;
            if self.buffers[buf.0 as usize].place.constant {
                let nothing = self.context.metadata_node(&[]);
                load.set_metadata(nothing, self.context.get_kind_id("invariant.load"))?;
            }
        }
        Ok(value)
    }

    /// Consecutive elements of less than 32 bits as lanes of 32 bits.
    pub(crate) fn words(&self, buf: Buf, at: &Affine, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        self.load_as(self.context.i32_type().into(), buf, at, lanes)
    }

    /// Stores lanes to consecutive elements.
    pub(crate) fn store(&self, buf: Buf, at: &Affine, value: Reg) -> Result<(), Fault> {
        let lanes = self.kernel.ty(value).lanes;
        let dtype = self.buffers[buf.0 as usize].dtype;
        let value = self.narrow(dtype, self.value(value)?, lanes)?;
        let store = self.b.build_store(self.place(buf, at)?, value)?;
        self.annotate(store, buf, at)
    }

    /// Asks for a cache line that will be read, to be kept in all caches; on a GPU, in the one that all multiprocessors share.
    pub(crate) fn prefetch(&self, buf: Buf, at: &Affine) -> Result<(), Fault> {
        if matches!(self.form, Form::Gpu(_)) {
            return gpu::prefetch(self.context, &self.b, self.place(buf, at)?);
        }
        const READ: u64 = 0;
        const KEEP: u64 = 3;
        const DATA: u64 = 1;
        let place = self.place(buf, at)?;
        let argument = |n| self.context.i32_type().const_int(n, false).into();
        let arguments = [place.into(), argument(READ), argument(KEEP), argument(DATA)];
        let prefetch = self.intrinsic("llvm.prefetch", place.get_type().as_basic_type_enum())?;
        self.b.build_call(prefetch, &arguments, "")?;
        Ok(())
    }
}
