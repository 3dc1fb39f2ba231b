//! The four declarations of the contract. Each gives a type and the rows that describe it, so that neither
//! can differ from the other.

/// A 32- or 64-bit value with named fields, from bit 0 up. A field marked `[secret]` is redacted by `Debug`
/// and by every dump that reads the rows; a field whose name begins with `_` is reserved.
macro_rules! bits {
    ($(
        $(#[doc = $doc:literal])*
        pub struct $name:ident: $repr:ident {
            $( $(#[doc = $field_doc:literal])* $([$secret:ident])? $field:ident: $field_type:ident = $width:tt, )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[bitfield_struct::bitfield($repr, debug = false)]
        #[derive(PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $field_doc])* #[bits($width)] pub $field: $field_type, )*
        }

        impl $crate::rows::Value for $name {
            const WIDTH_BITS: u8 = $repr::BITS as u8;
            const FIELDS: &'static [$crate::rows::Field] = &[
                $( $crate::rows::Field {
                    name: stringify!($field),
                    bits: $width,
                    secret: bits!(@secret $($secret)?),
                    doc: concat!($($field_doc, "\n",)* ""),
                }, )*
            ];
            fn of_bits(bits: u64) -> Self {
                Self::from_bits(bits as $repr)
            }
            fn bits(self) -> u64 {
                self.into_bits() as u64
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::export::debug_fields(stringify!($name), self, formatter)
            }
        }
    )*};
    (@secret secret) => { true };
    (@secret) => { false };
}

/// A block of registers at fixed offsets.
macro_rules! registers {
    (
        $(#[doc = $doc:literal])*
        pub block $block:ident, kind $kind:literal, version $version:literal,
            at $base:literal, stride $stride:literal {
            $( $(#[doc = $register_doc:literal])* $offset:literal $access:ident $name:ident: $value:ty; )*
        }
    ) => {
        $( $(#[doc = $register_doc])*
        pub const $name: $crate::rows::Register<$value> = $crate::rows::Register::new(
            $base + $offset,
            stringify!($name),
            $crate::rows::Access::$access,
            concat!($($register_doc, "\n",)* ""),
        ); )*

        $(#[doc = $doc])*
        pub const $block: $crate::rows::Block = $crate::rows::Block {
            name: stringify!($block),
            kind: $kind,
            version: $version,
            offset: $base,
            stride: $stride,
            doc: concat!($($doc, "\n",)* ""),
            registers: &[ $( $name.row(), )* ],
        };
    };
}

/// A record of 64-bit words in host memory.
macro_rules! record {
    ($(
        $(#[doc = $doc:literal])*
        pub struct $name:ident[$count:literal] {
            $( $(#[doc = $word_doc:literal])* $word:ident: $value:ty, )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $word_doc])* pub $word: $value, )*
        }

        impl $name {
            /// Number of 64-bit words.
            pub const WORDS: usize = $count;
            /// Size in bytes.
            pub const BYTES: usize = $count * 8;
            /// The record as data.
            pub const ROW: $crate::rows::Record = $crate::rows::Record {
                name: stringify!($name),
                doc: concat!($($doc, "\n",)* ""),
                words: &[ $( $crate::rows::Word {
                    name: stringify!($word),
                    doc: concat!($($word_doc, "\n",)* ""),
                    fields: <$value as $crate::rows::Value>::FIELDS,
                }, )* ],
            };

            /// The record as it stands in memory (each word little-endian).
            #[inline]
            pub fn to_words(&self) -> [u64; $count] {
                [ $( $crate::rows::Value::bits(self.$word), )* ]
            }

            /// The record these words hold. Total: every pattern is a record.
            #[inline]
            pub fn of_words(words: &[u64; $count]) -> Self {
                let [ $( $word, )* ] = *words;
                $name { $( $word: <$value as $crate::rows::Value>::of_bits($word), )* }
            }
        }
    )*};
}

/// An enumeration that stands in a field: the type, its conversion from a number, and its rows.
macro_rules! enumeration {
    ($(
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $value_doc:literal])* $value:ident = $number:literal, $text:literal; )*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $( $(#[doc = $value_doc])* $value = $number, )*
        }

        impl $name {
            /// The enumeration as data.
            pub const ROW: $crate::rows::Enumeration = $crate::rows::Enumeration {
                name: stringify!($name),
                doc: concat!($($doc, "\n",)* ""),
                values: &[ $( $crate::rows::Enumerator {
                    name: $text,
                    number: $number,
                    doc: concat!($($value_doc, "\n",)* ""),
                }, )* ],
            };
            /// Every value, in the order of the table.
            pub const ALL: &'static [$name] = &[ $( $name::$value, )* ];

            /// The number that stands in the field.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The value of a number; `None` for a number the contract does not define.
            pub const fn of_number(number: u32) -> Option<Self> {
                match number {
                    $( $number => Some($name::$value), )*
                    _ => None,
                }
            }

            /// Its name in snake_case.
            pub const fn name(self) -> &'static str {
                match self {
                    $( $name::$value => $text, )*
                }
            }
        }
    )*};
}

pub(crate) use {bits, enumeration, record, registers};
