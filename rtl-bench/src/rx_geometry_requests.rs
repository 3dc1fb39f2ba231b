//! Random requests for `rx_geometry`: of every form, about half of them good, the others wrong by an octet or by anything.

use cryptonic_hwmodel::rx_geometry::{EespFormat, NUMBERS_OCTETS, Request, Sa, Window};
use cryptonic_wire::eesp::Numbering;
use cryptonic_wire::esp::Cipher;
use cryptonic_wire::{IcvLength, Protocol};

/// The largest offset that a request can have.
const MAX_OFFSET: i64 = 0x3fff;

/// Random requests from a seed, the same ones each time.
#[derive(Clone, Debug)]
pub struct Requests {
    state: u64,
}

impl Requests {
    /// The requests of this seed.
    pub fn new(seed: u64) -> Self {
        Requests { state: seed }
    }

    /// A random number (SplitMix64).
    #[inline]
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One of these.
    #[inline]
    pub fn of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        const { assert!(N > 0) };
        choices[(self.number() % N as u64) as usize]
    }

    /// True once in so many times.
    #[inline]
    pub fn one_in(&mut self, count: u64) -> bool {
        self.number().is_multiple_of(count)
    }

    /// The next request.
    pub fn request(&mut self) -> Request {
        let protocol = self.of([Protocol::Esp, Protocol::Psp, Protocol::Wespv2, Protocol::Eesp]);
        let sa = self.sa(protocol);
        let any = self.number();
        let mut request = Request {
            protocol,
            security_offset: self.of([34, 42, 54, 62, any as u16 & 0x3fff]),
            numbers_offset: 0,
            header_octets: 0,
            crypt_offset: 0,
            payload_offset: None,
            session_id: self.of([0, 7, 8, 9, (any >> 16) as u16]),
            psp_flags: self.number() as u8,
            l3_end: 0,
            numbers: self.numbers(&sa),
            sa,
        };
        self.place(&mut request);
        if self.one_in(10) {
            self.spoil(&mut request);
        }
        request
    }

    fn icv_length(&mut self) -> IcvLength {
        self.of([IcvLength::Octets8, IcvLength::Octets12, IcvLength::Octets16])
    }

    fn sa(&mut self, protocol: Protocol) -> Sa {
        let cipher = self.of([Cipher::Gcm, Cipher::GcmImplicitIv, Cipher::Gmac]);
        let icv_length = self.icv_length();
        match protocol {
            Protocol::Wespv2 => Sa::Wespv2 { cipher, icv_length },
            Protocol::Eesp => Sa::Eesp {
                numbering: self.of([Numbering::SequenceAndIv, Numbering::SequenceIsIv, Numbering::IvAlone]),
                format: self.of([EespFormat::Optimized, EespFormat::Full, EespFormat::FullWithCryptOffset]),
                icv_length,
                last_sub_sa: self.of([None, Some(7), Some(8), Some(u16::MAX)]),
            },
            Protocol::Psp => Sa::Psp,
            _ => Sa::Esp {
                cipher,
                icv_length,
                extended_sequence: self.of([None, Some(()), Some(())]).map(|()| self.window()),
            },
        }
    }

    fn window(&mut self) -> Window {
        let any = self.number();
        let high = self.of([0, 1, 0xffff_ffff, any >> 32]);
        let low = self.of([0, 1, 31, 0x8000_0000, 0xffff_ffe0, 0xffff_ffff, any & 0xffff_ffff]);
        let any = self.number() as u32;
        let size = self.of([0, 1, 32, 64, 1024, 65536, 1 << 31, (1 << 31) + 1, u32::MAX, any]);
        Window { top: high << 32 | low, size }
    }

    /// Numbers in a packet: often zero, or close to what the SA's window has.
    fn numbers(&mut self, sa: &Sa) -> [u8; NUMBERS_OCTETS] {
        let mut words = [0; 4].map(|_: u32| self.number() as u32);
        if self.one_in(8) {
            words[0] = 0;
        }
        if self.one_in(4) {
            words[1] = 0;
        }
        if let Sa::Esp { extended_sequence: Some(window), .. } = sa {
            let near = self.number() as u32 % 5;
            let behind_top = window.size.wrapping_sub(1);
            let edge = self.of([0, behind_top, 1 << 31]);
            if !self.one_in(4) {
                words[0] = (window.top as u32).wrapping_sub(edge).wrapping_add(near).wrapping_sub(2);
            }
        }
        let mut numbers = [0; NUMBERS_OCTETS];
        for (octets, word) in numbers.as_chunks_mut().0.iter_mut().zip(words) {
            *octets = word.to_be_bytes();
        }
        numbers
    }

    /// Gives a request the offsets of a packet whose end is where it must be at least, or a little off, or anywhere.
    fn place(&mut self, request: &mut Request) {
        let start = i64::from(request.security_offset);
        let any = self.number();
        let units = self.of([0, 1, 5, 63, any as u8 & 63]);
        let iv_octets = |cipher: Cipher| cipher.iv_length() as i64;
        let (header, numbers_at, crypt_from, least, icv) = match request.sa {
            Sa::Esp { cipher, icv_length, .. } => (8, 4, 8 + iv_octets(cipher), 2, icv_length.octets()),
            Sa::Wespv2 { cipher, icv_length } => {
                request.crypt_offset = units;
                let esp_at = 4 + self.of([0, 4, 12, 60]);
                let header = esp_at + 8 + iv_octets(cipher);
                (header, esp_at + 4, header, 2, icv_length.octets())
            }
            Sa::Eesp { numbering, format, icv_length, .. } => {
                let header = 8 + self.of([0, 4, 8, 200]);
                let numbers = if numbering == Numbering::SequenceAndIv { 16 } else { 8 };
                let has_option = format == EespFormat::FullWithCryptOffset && !self.one_in(4);
                if has_option {
                    request.payload_offset = Some(((header + numbers) / 4) as u8 & 63);
                    request.crypt_offset = units;
                }
                let info = if format == EespFormat::Optimized { 0 } else { 4 };
                (header, header, header + numbers, info, icv_length.octets())
            }
            Sa::Psp => {
                request.crypt_offset = units;
                (self.of([16, 24, 32, 2048]), 8, 16, 0, 16)
            }
        };
        let clear_end = crypt_from + 4 * i64::from(request.crypt_offset);
        let any_end = (any >> 8) as i64 & MAX_OFFSET;
        let least_end = self.of([clear_end, clear_end, crypt_from, header]) + least + icv as i64;
        let off = self.of([-2, -1, 0, 0, 1, 2, 60, 1400]);
        let end = if self.one_in(12) { any_end } else { start + least_end + off };
        request.header_octets = (header & 0xfff) as u16;
        request.numbers_offset = (start + numbers_at).clamp(0, MAX_OFFSET) as u16;
        request.l3_end = end.clamp(0, MAX_OFFSET) as u16;
    }

    /// Makes one field anything.
    fn spoil(&mut self, request: &mut Request) {
        let any = self.number();
        match self.number() % 9 {
            0 => request.security_offset = any as u16 & 0x3fff,
            1 => request.numbers_offset = any as u16 & 0x3fff,
            2 => request.header_octets = self.of([0, 4, 0xfff, any as u16 & 0xfff]),
            3 => request.crypt_offset = any as u8 & 63,
            4 => request.payload_offset = Some(any as u8 & 63),
            5 => request.l3_end = self.of([0, 7, 8, 15, 16, 0x3fff, any as u16 & 0x3fff]),
            6 => request.sa = self.sa_of_any(),
            7 => request.protocol = self.of([Protocol::Other, Protocol::NatKeepalive]),
            _ => request.header_octets = request.header_octets.wrapping_add(4) & 0xfff,
        }
    }

    fn sa_of_any(&mut self) -> Sa {
        let protocol = self.of([Protocol::Esp, Protocol::Psp, Protocol::Wespv2, Protocol::Eesp]);
        self.sa(protocol)
    }
}
