//! Which library does the cryptography of TLS. Several are in the build, and rustls takes none of them by itself.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one of this process, which is from now on what rustls takes where nobody says otherwise.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static CHOSEN: LazyLock<&'static Arc<CryptoProvider>> = LazyLock::new(|| {
        // An error means that somebody has chosen already.
        drop(aws_lc_rs::default_provider().install_default());
        CryptoProvider::get_default().expect("one was just chosen")
    });
    &CHOSEN
}
