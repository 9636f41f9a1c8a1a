//! How many files this process may have open: connections, pipes, the store's, and those of WebAssembly guests.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as it wants where it may have them: shells and service managers mostly begin with 1,024, for programs that know
/// no more.
const WANTED: u64 = 65_536;

/// The least that a share is.
const LEAST: u64 = 16;

/// Has it allowed as many as it may take by itself.
pub fn allow() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = WANTED.min(hard);
    if wanted > soft
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        tracing::warn!(%error, soft, wanted, "no more files can be allowed to this process");
    }
}

/// What one of so many may have open, where a quarter of all is for them.
pub fn share(parts: u32) -> u64 {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    (soft / 4 / u64::from(parts.max(1))).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_shared_and_nobody_is_left_without() {
        allow();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("told");
        assert!(soft >= WANTED.min(hard), "{soft} of {hard}");
        assert_eq!((share(1), share(8)), ((soft / 4).max(LEAST), (soft / 32).max(LEAST)));
        assert_eq!(share(u32::MAX), LEAST);
    }
}
