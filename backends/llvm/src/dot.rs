//! Products of bytes, with the instructions that a CPU has for them.

use inkwell::types::{BasicTypeEnum, VectorType};
use inkwell::values::{BasicValueEnum, InstructionOpcode};
use rwkvc_backend_api::{Arch, Target};
use rwkvc_ir::kernel::{Scalar, Type};

use crate::emitter::{Emitter, Fault, lanes_of};
use crate::instruction::{intrinsic, value_of, vector};

/// How four products of bytes are added up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dots {
    /// One instruction does, on up to so many lanes.
    Vnni(u32),
    /// Pairs of 16-bit products, on up to so many lanes.
    Pairs(u32),
    /// One instruction does, if all bytes are signed.
    Signed,
    /// Byte after byte.
    Bytes,
}

impl Dots {
    pub(crate) fn of(target: &Target) -> Self {
        match target.arch {
            Arch::X86_64 if target.has("avx512vnni") && target.has("avx512vl") => Dots::Vnni(16),
            Arch::X86_64 if target.has("avxvnni") => Dots::Vnni(8),
            Arch::X86_64 if target.has("avx512bw") => Dots::Pairs(16),
            Arch::X86_64 if target.has("avx2") => Dots::Pairs(8),
            Arch::Aarch64 if target.has("dotprod") => Dots::Signed,
            _ => Dots::Bytes,
        }
    }

    /// The most lanes of one instruction; fewer than four have none.
    fn lanes(self) -> u32 {
        match self {
            Dots::Vnni(lanes) | Dots::Pairs(lanes) => lanes,
            Dots::Signed => 4,
            Dots::Bytes => u32::MAX,
        }
    }
}

/// The operands: unsigned bytes, signed bytes, and what is added.
type Operands<'c> = [BasicValueEnum<'c>; 3];

impl<'c> Emitter<'_, '_, 'c> {
    /// `c + Σ aᵢ bᵢ` over the bytes of each lane.
    pub(crate) fn dot4(
        &self,
        dots: Dots,
        [a, b, c]: Operands<'c>,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        if lanes > dots.lanes() {
            let half = lanes / 2;
            let of = |first| -> Result<_, Fault> {
                let [a, b, c] = [a, b, c].map(|x| self.part(x, first, half));
                self.dot4(dots, [a?, b?, c?], half)
            };
            return self.concat(of(0)?, of(half)?, lanes);
        }
        match dots {
            _ if lanes < 4 => self.dot4_of_bytes([a, b, c], lanes),
            Dots::Vnni(_) => self.dot4_at_once([a, b, c], lanes),
            Dots::Pairs(_) => self.dot4_of_pairs([a, b, c], lanes),
            Dots::Signed => self.dot4_of_signed([a, b, c]),
            Dots::Bytes => self.dot4_of_bytes([a, b, c], lanes),
        }
    }

    fn dot4_at_once(&self, [a, b, c]: Operands<'c>, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        let name = format!("llvm.x86.avx512.vpdpbusd.{}", 32 * lanes);
        self.call_fixed(&name, &[c, a, b])
    }

    /// Bytes at even and at odd places as 16-bit numbers: the product of two such numbers fits, which the shorter way through
    /// sums of two products of bytes does not.
    fn dot4_of_pairs(&self, [a, b, c]: Operands<'c>, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        use InstructionOpcode::{AShr, Add, And, BitCast, LShr, Shl};
        let name = match lanes {
            4 => "llvm.x86.sse2.pmadd.wd",
            8 => "llvm.x86.avx2.pmadd.wd",
            _ => "llvm.x86.avx512.pmaddw.d.512",
        };
        let halves = lanes_of(self.context.i16_type().into(), 2 * lanes);
        let eight = self.halves(8, lanes);
        let [a, b] = [a, b].map(|x| self.cast(BitCast, x, halves));
        let (a, b) = (a?, b?);
        let even = [
            self.binop(And, a, self.halves(0xff, lanes))?,
            self.binop(AShr, self.binop(Shl, b, eight)?, eight)?,
        ];
        let odd = [self.binop(LShr, a, eight)?, self.binop(AShr, b, eight)?];
        let even = self.call_fixed(name, &even)?;
        let odd = self.call_fixed(name, &odd)?;
        self.binop(Add, self.binop(Add, c, even)?, odd)
    }

    /// `Σ (a - 128) b + 128 Σ b`: the second sum is the same for all that is multiplied with `b`.
    fn dot4_of_signed(&self, [a, b, c]: Operands<'c>) -> Result<BasicValueEnum<'c>, Fault> {
        use InstructionOpcode::{Add, Shl, Xor};
        let dot = |c, x, y| {
            let bytes = lanes_of(self.context.i8_type().into(), 16);
            let ty = self.ty(Type {
                scalar: Scalar::I32,
                lanes: 4,
            });
            let dot = intrinsic(self.module, "llvm.aarch64.neon.sdot", &[ty, bytes])?;
            let [x, y] = [x, y].map(|x| self.cast(InstructionOpcode::BitCast, x, bytes));
            value_of(self.b.build_call(dot, &[c, x?, y?].map(Into::into), "")?)
        };
        let sum = dot(self.ints(0, 4), self.ints(0x0101_0101, 4), b)?;
        let sum = self.binop(Shl, sum, self.ints(7, 4))?;
        let a = self.binop(Xor, a, self.ints(0x8080_8080, 4))?;
        dot(self.binop(Add, c, sum)?, a, b)
    }

    fn dot4_of_bytes(&self, [a, b, c]: Operands<'c>, lanes: u32) -> Result<BasicValueEnum<'c>, Fault> {
        use InstructionOpcode::{AShr, Add, And, LShr, Mul, Shl};
        let n = |n| self.ints(n, lanes);
        let mut sum = c;
        for byte in 0..4 {
            let a = self.binop(And, self.binop(LShr, a, n(8 * byte))?, n(0xff))?;
            let b = self.binop(AShr, self.binop(Shl, b, n(24 - 8 * byte))?, n(24))?;
            sum = self.binop(Add, sum, self.binop(Mul, a, b)?)?;
        }
        Ok(sum)
    }

    /// Calls an intrinsic function whose types are fixed: operands of the same size are taken for what it wants.
    fn call_fixed(&self, name: &str, operands: &[BasicValueEnum<'c>]) -> Result<BasicValueEnum<'c>, Fault> {
        let function = intrinsic(self.module, name, &[])?;
        let types = function.get_type().get_param_types();
        let mut arguments = vec![];
        for (&operand, ty) in operands.iter().zip(types) {
            let ty =
                BasicTypeEnum::try_from(ty).map_err(|()| Fault(format!("`{name}` has odd parameters")))?;
            arguments.push(self.cast(InstructionOpcode::BitCast, operand, ty)?.into());
        }
        value_of(self.b.build_call(function, &arguments, "")?)
    }

    /// A 16-bit constant in both halves of each lane.
    fn halves(&self, value: u64, lanes: u32) -> BasicValueEnum<'c> {
        let value = self.context.i16_type().const_int(value, false);
        VectorType::const_vector(&vec![value; 2 * lanes as usize]).into()
    }

    /// The lanes of one register and then those of another.
    fn concat(
        &self,
        low: BasicValueEnum<'c>,
        high: BasicValueEnum<'c>,
        lanes: u32,
    ) -> Result<BasicValueEnum<'c>, Fault> {
        let int = self.context.i32_type();
        let mask: Vec<_> = (0..u64::from(lanes)).map(|i| int.const_int(i, false)).collect();
        let mask = VectorType::const_vector(&mask);
        Ok(self
            .b
            .build_shuffle_vector(vector(low)?, vector(high)?, mask, "")?
            .into())
    }
}
