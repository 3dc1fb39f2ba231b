//! The userspace driver.
