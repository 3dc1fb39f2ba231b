//! What the tests of the RTL share.

use std::fmt::Display;

/// Says why a test is skipped, which `CRYPTONIC_REQUIRE`, `all` or a list of names, may forbid.
pub fn skip(reason: impl Display) {
    let required = std::env::var("CRYPTONIC_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == "all" || name == "rtl"),
        "{reason}: and CRYPTONIC_REQUIRE={required} requires it"
    );
    println!("skipped: {reason}");
}
