//! What a principal does, as it is recorded in the audit log. What changes something goes on where its client leaves
//! meanwhile: what was done is recorded in any case.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::Acting;
use crate::access::{Issued, KeyId, NewKey};
use crate::audit::{Action, Door, Event, Origin, Trail};
use crate::compiled::Compiled;
use crate::definition::{Definition, Kind};
use crate::dispatcher::Cancelled;
use crate::error::{Code, Error, Result};
use crate::execution::Client;
use crate::registry::{ImportOptions, Imported};

impl Acting {
    /// What is to be recorded.
    pub(super) fn trail(&self) -> &Arc<Trail> {
        &self.system.inner.trail
    }

    /// Does what changes something once there is room for an entry about it, and records what came of it: its result, and
    /// what else is to be known.
    pub(super) async fn recorded<T: Send + 'static>(
        &self,
        action: Action,
        subject: String,
        work: impl Future<Output = Result<T>> + Send + 'static,
        told: impl FnOnce(&T) -> (&'static str, Value) + Send + 'static,
    ) -> Result<T> {
        let (trail, origin) = (self.trail().clone(), self.origin.clone());
        let work = async move {
            let done = work.await;
            match done.as_ref().map(told) {
                Ok(("ok", detail)) => trail.done(&origin, action, subject, detail),
                Ok((result, detail)) => {
                    let event = Event::done(origin, action, subject, detail);
                    trail.refusal(Event { result, ..event });
                }
                Err(error) => trail.refused(&origin, action, subject, error),
            }
            done
        };
        self.to_its_end(work, "request").await
    }

    /// Does what changes something to its end, once there is room for an entry, also where its client leaves meanwhile.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        what: &str,
    ) -> Result<T> {
        // Before the task, so that who gives up waiting leaves nothing behind.
        self.trail().room().await;
        let lost = |_| Err(Error::unavailable(format!("the service failed on this {what}")));
        tokio::spawn(work).await.unwrap_or_else(lost)
    }

    /// Takes in definitions that the principal may use; each that changed something has an entry.
    pub(super) async fn import_allowed(
        &self,
        kind: Kind,
        definitions: Vec<Definition>,
        options: ImportOptions,
    ) -> Result<Vec<Result<Imported>>> {
        let ids: Vec<String> = definitions.iter().map(|definition| definition.id.clone()).collect();
        let (system, trail, origin) = (self.system.clone(), self.trail().clone(), self.origin.clone());
        let import = async move {
            let imported = system.import(kind, definitions, options).await;
            let action = Action::DefinitionImport;
            match &imported {
                Ok(imported) => {
                    for (id, became) in ids.iter().zip(imported) {
                        let became = match became {
                            _ if options.dry_run => continue,
                            Ok(Imported::Exists | Imported::Unchanged) => continue,
                            Ok(Imported::Created) => "created",
                            Ok(Imported::Updated) => "updated",
                            Err(error) => {
                                trail.refused(&origin, action, kind.subject(id), error);
                                continue;
                            }
                        };
                        trail.done(&origin, action, kind.subject(id), json!({ "became": became }));
                    }
                }
                Err(error) => trail.refused(&origin, action, kind.name(), error),
            }
            imported
        };
        self.to_its_end(import, "import").await
    }

    /// Makes a key; its entry has the id that it was given.
    pub(super) async fn create_key_recorded(&self, new: NewKey) -> Result<Issued> {
        let (trail, origin, system) = (self.trail().clone(), self.origin.clone(), self.system.clone());
        let create = async move {
            let issued = system.create_key(new).await;
            match &issued {
                Ok(Issued { about, .. }) => {
                    trail.done(&origin, Action::KeyCreate, about.subject(), about.detail());
                }
                Err(error) => trail.refused(&origin, Action::KeyCreate, "", error),
            }
            issued
        };
        self.to_its_end(create, "request").await
    }

    /// Ends an execution that is known to be the principal's, wherever it is.
    pub(crate) async fn cancel_own(&self, uuid: Uuid) -> Result<Cancelled> {
        let system = self.system.clone();
        self.cancel_recorded(uuid, async move { system.cancel(uuid).await }).await
    }

    pub(super) async fn cancel_recorded(
        &self,
        uuid: Uuid,
        cancel: impl Future<Output = Result<Cancelled>> + Send + 'static,
    ) -> Result<Cancelled> {
        let told = |cancelled: &Cancelled| {
            let result = match cancelled {
                Cancelled::Asked => "ok",
                Cancelled::Ended => Code::Conflict.as_str(),
                Cancelled::Unknown => Code::NotFound.as_str(),
            };
            (result, json!({}))
        };
        self.recorded(Action::ExecutionCancel, uuid.to_string(), cancel, told).await
    }

    /// Refuses an id that the principal may not use as if there were none.
    pub(super) fn sees(&self, action: Action, kind: Kind, id: &str) -> Result<()> {
        self.may_name(action, kind, id).map_err(|_| kind.not_registered())
    }

    /// Refuses to make something with an id that the principal may not use.
    pub(super) fn may_name(&self, action: Action, kind: Kind, id: &str) -> Result<()> {
        if self.principal.ids().has(id) {
            return Ok(());
        }
        Err(self.beyond(action, kind, id))
    }

    /// What is recorded of an id that the principal may not use, and told of it where it gives that id itself.
    pub(super) fn beyond(&self, action: Action, kind: Kind, id: &str) -> Error {
        let refused = self.principal.ids().refusal();
        self.trail().refused(&self.origin, action, kind.subject(id), &refused);
        refused
    }
}

/// What is recorded of a definition that was written.
pub(super) fn written(definition: &Arc<Compiled>) -> (&'static str, Value) {
    ("ok", json!({ "revision": definition.number }))
}

/// What is recorded of a definition that came from a source, which may have another id than the name that was asked for.
pub(super) fn registered(definition: &Arc<Compiled>) -> (&'static str, Value) {
    ("ok", json!({ "id": definition.id, "revision": definition.number }))
}

/// The entry about somebody who was not let in. A key that was shown with its secret is who that is; one that was only
/// named is not.
pub(super) fn unauthorized(
    named: Option<(KeyId, bool)>,
    address: IpAddr,
    door: Door,
    error: &Error,
) -> Event {
    let mut origin = Origin::stranger(address, door);
    if let Some((id, true)) = named {
        origin.principal = Client::Key(id).to_string().into();
    }
    let mut event = Event::refused(Arc::new(origin), Action::Enter, door.name(), error.code(), error);
    if let Some((id, false)) = named {
        event.detail.add("named", Client::Key(id).to_string());
    }
    event
}
