//! Buffers, positions in them, loads and stores.

use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::types::{BasicType, BasicTypeEnum};
use inkwell::values::{BasicValue, BasicValueEnum, InstructionValue, IntValue, MetadataValue, PointerValue};
use rwkvc_ir::DType;
use rwkvc_ir::kernel::{Affine, Buf, Kernel, Reg};

use crate::cpu;
use crate::emitter::{Emitter, Fault, lanes_of};

/// A place that holds elements.
pub(crate) struct Buffer<'c> {
    base: PointerValue<'c>,
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
    }
}

/// The parameters, whose addresses the caller passes in an array, and the locals.
pub(crate) fn buffers<'c>(
    kernel: &Kernel,
    context: &'c Context,
    b: &Builder<'c>,
    array: PointerValue<'c>,
) -> Result<Vec<Buffer<'c>>, Fault> {
    let pointer = context.ptr_type(Default::default());
    let aliasing = aliasing(kernel, context);
    let mut buffers = Vec::with_capacity(kernel.params.len() + kernel.locals.len());
    for ((param, aliasing), i) in kernel.params.iter().zip(aliasing).zip(0..) {
        let index = context.i64_type().const_int(i, false);
        // SAFETY: an address of one type and one index is what LLVM expects.
        let place = unsafe { b.build_gep(pointer, array, &[index], "")? };
        let base = b.build_load(pointer, place, &param.name)?.into_pointer_value();
        buffers.push(Buffer {
            base,
            dtype: param.dtype,
            aliasing: Some(aliasing),
        });
    }
    for local in &kernel.locals {
        let base = cpu::local(local, context, b)?;
        buffers.push(Buffer {
            base,
            dtype: local.dtype,
            aliasing: None,
        });
    }
    Ok(buffers)
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
        let mut place = buffer.base;
        for term in self.terms(at)?.into_iter().chain([self.index(at.offset)]) {
            // SAFETY: an address of one type and one index is what LLVM expects.
            place = unsafe { self.b.build_gep(element, place, &[term], "")? };
        }
        Ok(place)
    }

    /// Says what is known of a load or store.
    fn annotate(&self, access: InstructionValue<'c>, buf: Buf) -> Result<(), Fault> {
        let buffer = &self.buffers[buf.0 as usize];
        access.set_alignment(buffer.dtype.size() as u32)?;
        if let Some(Aliasing { own, others }) = buffer.aliasing {
            access.set_metadata(own, self.context.get_kind_id("alias.scope"))?;
            access.set_metadata(others, self.context.get_kind_id("noalias"))?;
        }
        Ok(())
    }

    /// Consecutive elements as lanes.
    pub(crate) fn load(&self, buf: Buf, at: &Affine, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        let dtype = self.buffers[buf.0 as usize].dtype;
        let ty = lanes_of(storage_type(self.context, dtype), lanes);
        let value = self.b.build_load(ty, self.place(buf, at)?, "")?;
        if let Some(load) = value.as_instruction_value() {
            self.annotate(load, buf)?;
        }
        self.widen(dtype, value, lanes)
    }

    /// Stores lanes to consecutive elements.
    pub(crate) fn store(&self, buf: Buf, at: &Affine, value: Reg) -> Result<(), Fault> {
        let lanes = self.kernel.ty(value).lanes;
        let dtype = self.buffers[buf.0 as usize].dtype;
        let value = self.narrow(dtype, self.value(value)?, lanes)?;
        let store = self.b.build_store(self.place(buf, at)?, value)?;
        self.annotate(store, buf)
    }

    /// Asks for a cache line that will be read, to be kept in all caches.
    pub(crate) fn prefetch(&self, buf: Buf, at: &Affine) -> Result<(), Fault> {
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
