//! Statements and instructions.

use super::*;

impl<'t> Parser<'t> {
    /// Statements up to the closing brace, which is taken. The opening one was.
    pub(super) fn statements(&mut self) -> Parsed<Vec<Stmt>> {
        if self.depth == MAX_DEPTH {
            return self.refuse(format!("at most {MAX_DEPTH} bodies in each other"));
        }
        self.depth += 1;
        let mut body = vec![];
        while !self.takes_sign('}') {
            body.push(self.statement()?);
        }
        self.depth -= 1;
        Ok(body)
    }

    fn statement(&mut self) -> Parsed<Stmt> {
        match self.token {
            Token::Name('%' | '$', _) | Token::Word("var") => return self.assignment(),
            Token::Word(word) => {
                if let Some(kind) = value(&LOOP, word) {
                    self.advance();
                    return self.repeat(kind);
                }
            }
            _ => {}
        }
        match self.token {
            Token::Word("store") => {
                self.advance();
                let (buf, at) = self.place()?;
                self.sign(',')?;
                Ok(Stmt::Store {
                    buf,
                    at,
                    value: self.register()?,
                })
            }
            Token::Word("prefetch") => {
                self.advance();
                let (buf, at) = self.place()?;
                Ok(Stmt::Prefetch { buf, at })
            }
            Token::Word("barrier") => {
                self.advance();
                Ok(Stmt::Barrier)
            }
            Token::Word("if") => {
                self.advance();
                let condition = self.register()?;
                self.sign('{')?;
                let then = self.statements()?;
                let otherwise = if self.takes_word("else") {
                    self.sign('{')?;
                    self.statements()?
                } else {
                    vec![]
                };
                Ok(Stmt::If {
                    condition,
                    then,
                    otherwise,
                })
            }
            _ => self.refuse("a statement or `}`"),
        }
    }

    fn repeat(&mut self, kind: LoopKind) -> Parsed<Stmt> {
        let (sigil, name, at) = self.name("%", "a loop variable, as in `%i`")?;
        self.word("in")?;
        let start = self.bound()?;
        if !self.takes(Token::Range) {
            return self.refuse("`..`");
        }
        let end = self.bound()?;
        let step = if self.takes_word("step") {
            self.integer(i64::MAX)?
        } else {
            1
        };
        self.sign('{')?;
        let var = self.new_register((sigil, name), Type::scalar(Scalar::Index), at)?;
        Ok(Stmt::For {
            kind,
            var,
            start,
            end,
            step,
            body: self.statements()?,
        })
    }

    fn bound(&mut self) -> Parsed<Bound> {
        match self.token {
            Token::Name('%' | '$', _) => Ok(Bound::Reg(self.register()?)),
            Token::Number(_) | Token::Sign('-') | Token::Word("T") => Ok(Bound::Extent(self.extent()?)),
            _ => self.refuse("a bound: an extent like `4*T` or a register"),
        }
    }

    fn assignment(&mut self) -> Parsed<Stmt> {
        let declares_mutable = self.takes_word("var");
        let sigils = if declares_mutable { "$" } else { "%$" };
        let (sigil, name, at) = self.name(sigils, "a register to assign")?;
        let annotated = if self.takes_sign(':') {
            Some(self.ty()?)
        } else {
            None
        };
        self.sign('=')?;
        if sigil == '%' || declares_mutable {
            let inst = self.inst()?;
            let Some(inferred) = self.kernel.result_of(&inst) else {
                return refuse(
                    at,
                    format!("`{sigil}{name}` without a type"),
                    "operands with types",
                );
            };
            let reg = self.new_register((sigil, name), annotated.unwrap_or(inferred), at)?;
            return Ok(Stmt::Let(reg, inst));
        }
        match self.registers.get(&(sigil, name)) {
            Some(&reg) if annotated.is_none() => Ok(Stmt::Let(reg, self.inst()?)),
            _ => refuse(
                at,
                format!("`{sigil}{name}`"),
                "`var` before the first assignment, and a type only there",
            ),
        }
    }

    fn new_register(&mut self, name: (char, &'t str), ty: Type, at: Position) -> Parsed<Reg> {
        let reg = Reg(self.kernel.registers.len() as u32);
        if self.buffers.contains_key(&name) || self.registers.insert(name, reg).is_some() {
            return refuse(at, format!("`{}{}` again", name.0, name.1), "a new name");
        }
        self.kernel.registers.push(RegInfo {
            ty,
            mutable: name.0 == '$',
            name: name.1.to_owned(),
        });
        Ok(reg)
    }

    /// A register that was assigned above.
    fn register(&mut self) -> Parsed<Reg> {
        if let Token::Name(sigil, name) = self.token {
            if let Some(&reg) = self.registers.get(&(sigil, name)) {
                self.advance();
                return Ok(reg);
            }
            return self.refuse("a register that is assigned above");
        }
        self.refuse("a register")
    }

    /// `f32x8`, `index`
    fn ty(&mut self) -> Parsed<Type> {
        if let Token::Word(word) = self.token {
            let (scalar, lanes) = word
                .split_once('x')
                .filter(|(_, n)| n.starts_with(|c: char| c.is_ascii_digit()))
                .unwrap_or((word, "1"));
            if let (Some(scalar), Ok(lanes)) = (value(&SCALAR, scalar), lanes.parse()) {
                self.advance();
                return Ok(Type { scalar, lanes });
            }
        }
        self.refuse("a type, as in `f32x8` or `index`")
    }

    /// `%x[4*%t]`
    fn place(&mut self) -> Parsed<(Buf, Affine)> {
        let buf = match self.token {
            Token::Name(sigil, name) => self.buffers.get(&(sigil, name)).copied(),
            _ => None,
        };
        let Some(buf) = buf else {
            return self.refuse("a parameter or a local");
        };
        self.advance();
        self.sign('[')?;
        let at = self.affine()?;
        self.sign(']')?;
        Ok((buf, at))
    }

    /// `4*%t - %i + 3`
    fn affine(&mut self) -> Parsed<Affine> {
        let mut affine = Affine::default();
        let mut is_first = true;
        loop {
            let at = self.at;
            let is_negative = self.takes_sign('-');
            if !is_first && !is_negative && !self.takes_sign('+') {
                return Ok(affine);
            }
            is_first = false;
            let signed = |n: i64| if is_negative { n.wrapping_neg() } else { n };
            if let Token::Name(..) = self.token {
                affine.terms.push((self.register()?, signed(1)));
                continue;
            }
            let n = signed(self.magnitude(i64::MAX, is_negative, at)?);
            if self.takes_sign('*') {
                affine.terms.push((self.register()?, n));
                continue;
            }
            affine.offset = match affine.offset.checked_add(n) {
                Some(sum) => sum,
                None => return refuse(at, "a sum beyond 64 bits".into(), "a smaller offset"),
            };
        }
    }

    fn comma_register(&mut self) -> Parsed<Reg> {
        self.sign(',')?;
        self.register()
    }

    /// A count or mask behind a comma.
    fn comma_number(&mut self) -> Parsed<u32> {
        self.sign(',')?;
        let Token::Number(digits) = self.token else {
            return self.refuse("a number");
        };
        match digits.parse() {
            Ok(n) => {
                self.advance();
                Ok(n)
            }
            Err(_) => self.refuse("a number of 32 bits"),
        }
    }

    fn inst(&mut self) -> Parsed<Inst> {
        const EXPECTED: &str = "an instruction";
        let Token::Word(word) = self.token else {
            return self.refuse(EXPECTED);
        };
        let at = self.at;
        self.advance();
        if let Some(op) = value(Unary::WORDS, word) {
            return Ok(Inst::Unary(op, self.register()?));
        }
        if let Some(op) = value(Binary::WORDS, word) {
            return Ok(Inst::Binary(op, self.register()?, self.comma_register()?));
        }
        if let Some(op) = value(Compare::WORDS, word) {
            return Ok(Inst::Compare(op, self.register()?, self.comma_register()?));
        }
        if let Some(op) = value(&REDUCTION, word) {
            return Ok(Inst::Reduce(op, self.register()?));
        }
        let (plain, suffix) = word.split_once('.').unwrap_or((word, "1"));
        if let ("load" | "words" | "splat", Ok(lanes)) = (plain, suffix.parse()) {
            if plain == "splat" {
                return Ok(Inst::Splat(self.register()?, lanes));
            }
            let (buf, at) = self.place()?;
            return Ok(if plain == "load" {
                Inst::Load { buf, at, lanes }
            } else {
                Inst::Words { buf, at, lanes }
            });
        }
        if let ("pack" | "mma", Ok(format)) = (plain, suffix.parse()) {
            let a = self.register()?;
            return Ok(if plain == "pack" {
                Inst::Pack(format, a)
            } else {
                let (b, c) = (self.comma_register()?, self.comma_register()?);
                Inst::Mma { format, a, b, c }
            });
        }
        Ok(match word {
            "const" => Inst::Float(self.float()?.into()),
            "const.i32" => Inst::Int(self.integer(i64::from(i32::MAX))? as i32),
            "const.index" => Inst::Index(self.integer(i64::MAX)?),
            "tokens" => Inst::Tokens,
            "address" => Inst::Address(self.affine()?),
            "copy" => Inst::Copy(self.register()?),
            "fma" => Inst::Fma(self.register()?, self.comma_register()?, self.comma_register()?),
            "dot4" => Inst::Dot4(self.register()?, self.comma_register()?, self.comma_register()?),
            "select" => Inst::Select(self.register()?, self.comma_register()?, self.comma_register()?),
            "join" => Inst::Join(self.registers()?),
            "sums" => Inst::Sums(self.registers()?),
            "zip_lower" => Inst::Zip(Half::Lower, self.register()?, self.comma_register()?),
            "zip_upper" => Inst::Zip(Half::Upper, self.register()?, self.comma_register()?),
            "extract" => Inst::Extract(self.register()?, self.comma_number()?),
            "shuffle" => Inst::Shuffle(self.register()?, self.comma_number()?),
            _ => return refuse(at, Token::Word(word).to_string(), EXPECTED),
        })
    }

    /// One register or more, separated by commas.
    fn registers(&mut self) -> Parsed<Vec<Reg>> {
        let mut all = vec![self.register()?];
        while self.takes_sign(',') {
            all.push(self.register()?);
        }
        Ok(all)
    }

    /// A decimal number, `inf`, or bits.
    fn float(&mut self) -> Parsed<f32> {
        let is_negative = self.takes_sign('-');
        let number = match self.token {
            Token::Number(digits) => match digits.strip_prefix("0x") {
                Some(bits) if !is_negative && !bits.starts_with('+') => {
                    u32::from_str_radix(bits, 16).ok().map(f32::from_bits)
                }
                Some(_) => None,
                None => digits.parse().ok(),
            },
            Token::Word("inf") => Some(f32::INFINITY),
            _ => None,
        };
        let Some(number) = number else {
            return self.refuse("a float, as in `2.0`, `1e-5` or `0x7fc00000`");
        };
        self.advance();
        Ok(if is_negative { -number } else { number })
    }
}
