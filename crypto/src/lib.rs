//! AES-GCM, GMAC and CMAC behind the trait of wire, one adapter per library.
