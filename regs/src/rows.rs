//! The shape of the contract's data: what a register, a field, a descriptor word is.

use core::marker::PhantomData;

/// Who may write a register, and what a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only; writes are ignored.
    ReadOnly,
    /// Read and write.
    ReadWrite,
    /// Write only; reads return 0.
    WriteOnly,
    /// Writing 1 sets the bit for good; writing 0 does nothing.
    WriteOneToSet,
    /// Writing 1 clears the bit; writing 0 does nothing.
    WriteOneToClear,
}

impl Access {
    /// The short name the manual uses.
    pub const fn name(self) -> &'static str {
        match self {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
            Access::WriteOnly => "wo",
            Access::WriteOneToSet => "w1s",
            Access::WriteOneToClear => "w1c",
        }
    }
}

/// One bit field. Its position is the sum of the widths of the fields before it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name in snake_case; reserved fields begin with an underscore.
    pub name: &'static str,
    /// Width in bits.
    pub bits: u8,
    /// Whether traces and dumps must redact it.
    pub secret: bool,
    /// What it means.
    pub doc: &'static str,
}

impl Field {
    /// Whether the field is reserved: written as 0, ignored on read.
    pub const fn reserved(&self) -> bool {
        self.name.as_bytes()[0] == b'_'
    }
}

/// The fields of a value that has no inner structure.
pub const WHOLE_32: &[Field] =
    &[Field { name: "value", bits: 32, secret: false, doc: "The whole register." }];
/// As [`WHOLE_32`], 64 bits wide.
pub const WHOLE_64: &[Field] = &[Field { name: "value", bits: 64, secret: false, doc: "The whole word." }];

/// What a register or a descriptor word holds.
pub trait Value: Copy {
    /// 32 or 64.
    const WIDTH_BITS: u8;
    /// Its fields from bit 0 up; their widths add up to [`Value::WIDTH_BITS`].
    const FIELDS: &'static [Field];
    /// The value of these bits. Total: every bit pattern is a value.
    fn of_bits(bits: u64) -> Self;
    /// The bits of this value.
    fn bits(self) -> u64;
}

impl Value for u32 {
    const WIDTH_BITS: u8 = 32;
    const FIELDS: &'static [Field] = WHOLE_32;
    fn of_bits(bits: u64) -> Self {
        bits as u32
    }
    fn bits(self) -> u64 {
        u64::from(self)
    }
}

impl Value for u64 {
    const WIDTH_BITS: u8 = 64;
    const FIELDS: &'static [Field] = WHOLE_64;
    fn of_bits(bits: u64) -> Self {
        bits
    }
    fn bits(self) -> u64 {
        self
    }
}

/// A typed register: where it is and what it holds.
#[derive(Debug)]
pub struct Register<T> {
    /// Byte offset from the start of its address space (for a repeated block: of its first instance).
    pub offset: u32,
    name: &'static str,
    access: Access,
    doc: &'static str,
    value: PhantomData<T>,
}

impl<T> Clone for Register<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Register<T> {}

impl<T: Value> Register<T> {
    /// A register at `offset`; the declarations of the blocks call this.
    pub const fn new(offset: u32, name: &'static str, access: Access, doc: &'static str) -> Self {
        Register { offset, name, access, doc, value: PhantomData }
    }

    /// The same register in instance `index` of a block that repeats every `stride` bytes.
    pub const fn instance(self, index: u32, stride: u32) -> Self {
        Register { offset: self.offset + index * stride, ..self }
    }

    /// The register as a row of plain data.
    pub const fn row(&self) -> RegisterRow {
        RegisterRow {
            name: self.name,
            offset: self.offset,
            width_bits: T::WIDTH_BITS,
            access: self.access,
            doc: self.doc,
            fields: T::FIELDS,
        }
    }
}

/// A register as data.
#[derive(Clone, Copy, Debug)]
pub struct RegisterRow {
    /// Name in SCREAMING_SNAKE_CASE.
    pub name: &'static str,
    /// Byte offset in the address space of the block.
    pub offset: u32,
    /// 32 or 64.
    pub width_bits: u8,
    /// Who may write it.
    pub access: Access,
    /// What it does.
    pub doc: &'static str,
    /// Its fields from bit 0 up.
    pub fields: &'static [Field],
}

/// A group of registers that the block table names.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Name in snake_case.
    pub name: &'static str,
    /// The number by which the block table names it.
    pub kind: u16,
    /// Rises when the block gains registers.
    pub version: u16,
    /// Byte offset of the first instance.
    pub offset: u32,
    /// Bytes of one instance, and the distance to the next.
    pub stride: u32,
    /// What it is for.
    pub doc: &'static str,
    /// Its registers in address order.
    pub registers: &'static [RegisterRow],
}

/// One 64-bit word of a record.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Name in snake_case.
    pub name: &'static str,
    /// What it holds.
    pub doc: &'static str,
    /// Its fields from bit 0 up.
    pub fields: &'static [Field],
}

/// A descriptor, completion, command or parameter block in host memory, as little-endian 64-bit words.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Name in CamelCase.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its words in address order.
    pub words: &'static [Word],
}

/// An enumerated value that stands in a field.
#[derive(Clone, Copy, Debug)]
pub struct Enumerator {
    /// Name in snake_case.
    pub name: &'static str,
    /// The number in the field.
    pub number: u32,
    /// What it means.
    pub doc: &'static str,
}

/// The values of one enumerated field.
#[derive(Clone, Copy, Debug)]
pub struct Enumeration {
    /// Name in CamelCase.
    pub name: &'static str,
    /// What the field chooses.
    pub doc: &'static str,
    /// Its values.
    pub values: &'static [Enumerator],
}
