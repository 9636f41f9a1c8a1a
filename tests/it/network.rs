//! A network of a test's own: in it an address of somebody else is this machine's. Only root can make one.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives this thread, and what it starts, a network with this machine alone in it, which has this address too, and a view of
/// the mounts that others do not share.
///
/// # Errors
/// Why there is none.
pub fn enter(address: Ipv4Addr) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(|error| error.to_string())?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|error| error.to_string())?;
    let address = format!("{address}/32");
    for arguments in [["link", "set", "lo", "up"].as_slice(), &["addr", "add", &address, "dev", "lo"]] {
        let done = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
        if !done.status.success() {
            return Err(format!("ip: {}", String::from_utf8_lossy(&done.stderr)));
        }
    }
    Ok(())
}
