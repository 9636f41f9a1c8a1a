//! A second lock (landlock(7)) for the case that the view has a hole: whatever is mounted where, programs may write only
//! where they are meant to, and, where the kernel can bound that, reach no socket and no process outside their jail.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use super::view;

/// The newest that this is written for; an older kernel holds what it can.
const NEWEST: ABI = ABI::V6;

/// The rules; none where the kernel has no Landlock.
///
/// # Errors
/// One sentence: it has, and does not take them.
pub fn ruleset() -> Result<Option<OwnedFd>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Landlock does not take the rules: {error}");
    let all = AccessFs::from_all(NEWEST);
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    let beneath = |place: &str, access| {
        PathFd::new(place).map(|folder| PathBeneath::new(folder, access)).map_err(|error| failed(&error))
    };
    let mut rules =
        rules.add_rule(beneath("/", AccessFs::from_read(NEWEST))?).map_err(|error| failed(&error))?;
    for place in [view::WORK, "/dev"].into_iter().chain(view::SCRATCH) {
        rules = rules.add_rule(beneath(place, all)?).map_err(|error| failed(&error))?;
    }
    Ok(rules.into())
}
