//! The system as one principal may use it. Whoever serves others has this handle and no other, so that there is no way
//! past its scopes. What a principal may not see is to it as if it were not there.
//!
//! What is changed, and what is refused, is recorded in the audit log here. Executions that are taken in and that end are
//! recorded by the dispatcher.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::{Connection, Execution, Picture, System};
use crate::access::{About, Issued, KeyId, NewKey, Principal, Scope};
use crate::audit::{self, Action, Origin, Report};
use crate::compiled::Compiled;
use crate::definition::{Definition, Kind, Patch};
use crate::dispatcher::Cancelled;
use crate::error::{Code, Error, Result};
use crate::execution::{
    Client, Job, Options, Page as ExecutionPage, PageRequest as ExecutionRequest, Snapshot,
};
use crate::json::RawObject;
use crate::query::Filter;
use crate::registry::{ImportOptions, Imported, Noted, Page, PageRequest};
use crate::session::Door;
use crate::version;

mod recorded;

use recorded::{registered, unauthorized, written};

/// What shows an execution: who may run one has to see how it ended.
const FOLLOW: [Scope; 2] = [Scope::Read, Scope::Execute];

/// A system, and on whose behalf it is used.
#[derive(Clone, Debug)]
pub struct Acting {
    pub(crate) system: System,
    principal: Arc<Principal>,
    /// As whom it stands in records.
    client: Client,
    /// As whom it stands in the audit log.
    origin: Arc<Origin>,
}

impl System {
    /// The system for who comes from this address by this door, with this token or without one, or with what could not be
    /// read as one.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn acting_for(
        &self,
        token: Result<Option<&str>>,
        address: IpAddr,
        door: audit::Door,
    ) -> Result<Acting> {
        let shown = token.as_ref().ok().copied().flatten();
        let principal = self.inner.keyring.principal(token).inspect_err(|error| {
            let named = self.inner.keyring.named(shown);
            self.inner.trail.refusal(unauthorized(named, address, door, error));
        })?;
        let address = Client::Address(address.to_canonical());
        let (client, name) = (principal.client(address), principal.name(address));
        let peer = if let Client::Address(address) = address { Some(address) } else { None };
        let origin = Arc::new(Origin { principal: name.into(), address: peer, door });
        Ok(Acting { system: self.clone(), principal, client, origin })
    }

    /// The system for itself: what it brings along.
    pub fn acting_for_itself(&self) -> Acting {
        let principal = Arc::new(Principal::unbound());
        let origin = Arc::new(Origin::service());
        Acting { system: self.clone(), principal, client: Client::UNNAMED, origin }
    }
}

impl Acting {
    /// Refuses who has none of these scopes to do this.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn may(&self, action: Action, subject: impl fmt::Display, scopes: &[Scope]) -> Result<()> {
        let may = self.principal.may(scopes);
        may.inspect_err(|error| self.trail().refused(&self.origin, action, subject, error))
    }

    /// Counts a request against the rate of the principal.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn count_request(&self) -> Result<()> {
        self.principal.count_request()
    }

    /// Waits until the principal may do nothing any more.
    pub async fn ended(&self) {
        self.principal.ended().await;
    }

    /// Adds a definition.
    ///
    /// # Errors
    /// `forbidden`; `conflict` where its id is taken; `overloaded`, `unavailable`.
    pub async fn create(&self, definition: Definition) -> Result<Arc<Compiled>> {
        let (action, kind, id) = (Action::DefinitionCreate, definition.kind, definition.id.clone());
        self.may(action, kind.subject(&id), &[Scope::Write])?;
        self.may_name(action, kind, &id)?;
        let system = self.system.clone();
        let create = async move { system.create(definition).await };
        self.recorded(action, kind.subject(&id).to_string(), create, written).await
    }

    /// The definition of exactly this id.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `overloaded`, `unavailable`.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionRead, kind.subject(id), &[Scope::Read])?;
        self.sees(Action::DefinitionRead, kind, id)?;
        self.system.get(kind, id).await
    }

    /// The ids of all versions of a name, the highest first.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `overloaded`, `unavailable`.
    pub async fn versions(&self, kind: Kind, name: &str) -> Result<Vec<String>> {
        self.may(Action::DefinitionRead, kind.subject(name), &[Scope::Read])?;
        let mut ids = self.system.versions(kind, name).await?;
        ids.retain(|id| self.principal.ids().has(id));
        if ids.is_empty() {
            self.beyond(Action::DefinitionRead, kind, name);
            return Err(kind.not_registered());
        }
        Ok(ids)
    }

    /// The revisions of a definition that are kept, the newest first, which is the one in force.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `overloaded`, `unavailable`.
    pub async fn revisions(&self, kind: Kind, id: &str) -> Result<Vec<Noted>> {
        self.may(Action::DefinitionRead, kind.subject(id), &[Scope::Read])?;
        self.sees(Action::DefinitionRead, kind, id)?;
        self.system.revisions(kind, id).await
    }

    /// One revision of a definition.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `overloaded`, `unavailable`.
    pub async fn revision(&self, kind: Kind, id: &str, number: u64) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionRead, kind.subject(id), &[Scope::Read])?;
        self.sees(Action::DefinitionRead, kind, id)?;
        self.system.revision(kind, id, number).await
    }

    /// Makes an earlier revision of a definition the one in force again.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `precondition_failed`; `overloaded`, `unavailable`.
    pub async fn roll_back(
        &self,
        kind: Kind,
        id: &str,
        number: u64,
        if_match: Option<String>,
    ) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionRollBack, kind.subject(id), &[Scope::Write])?;
        self.sees(Action::DefinitionRollBack, kind, id)?;
        let (system, subject, id) = (self.system.clone(), kind.subject(id).to_string(), id.to_owned());
        let roll_back = async move { system.roll_back(kind, &id, number, if_match).await };
        let told = move |now: &Arc<Compiled>| ("ok", json!({ "revision": now.number, "to": number }));
        self.recorded(Action::DefinitionRollBack, subject, roll_back, told).await
    }

    /// Takes in many definitions of a kind, and tells what became of each, in their order.
    ///
    /// # Errors
    /// `forbidden`, `overloaded`, `unavailable`; what is wrong with one of them is in its own place.
    pub async fn import(
        &self,
        kind: Kind,
        definitions: Vec<Definition>,
        options: ImportOptions,
    ) -> Result<Vec<Result<Imported>>> {
        self.may(Action::DefinitionImport, kind.name(), &[Scope::Write])?;
        let named: Vec<Result<()>> =
            definitions.iter().map(|one| self.may_name(Action::DefinitionImport, kind, &one.id)).collect();
        let allowed = definitions.into_iter().zip(&named).filter(|(_, may)| may.is_ok());
        let allowed: Vec<Definition> = allowed.map(|(definition, _)| definition).collect();
        let imported =
            if allowed.is_empty() { Vec::new() } else { self.import_allowed(kind, allowed, options).await? };
        let mut imported = imported.into_iter();
        let missing = || Err(Error::unavailable("there was no answer for it"));
        let each = named.into_iter().map(|may| may.and_then(|()| imported.next().unwrap_or_else(missing)));
        Ok(each.collect())
    }

    /// Replaces the given fields of a definition.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `precondition_failed`, `invalid`; `overloaded`, `unavailable`.
    pub async fn update(
        &self,
        kind: Kind,
        id: &str,
        patch: Patch,
        if_match: Option<String>,
    ) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionUpdate, kind.subject(id), &[Scope::Write])?;
        self.sees(Action::DefinitionUpdate, kind, id)?;
        let (system, subject, id) = (self.system.clone(), kind.subject(id).to_string(), id.to_owned());
        let update = async move { system.update(kind, &id, patch, if_match).await };
        self.recorded(Action::DefinitionUpdate, subject, update, written).await
    }

    /// Removes a definition; executions that were accepted with it keep it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `precondition_failed`; `overloaded`, `unavailable`.
    pub async fn delete(&self, kind: Kind, id: &str, if_match: Option<String>) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionDelete, kind.subject(id), &[Scope::Write])?;
        self.sees(Action::DefinitionDelete, kind, id)?;
        let (system, subject, id) = (self.system.clone(), kind.subject(id).to_string(), id.to_owned());
        let delete = async move { system.delete(kind, &id, if_match).await };
        self.recorded(Action::DefinitionDelete, subject, delete, written).await
    }

    /// Fetches a definition from the configured sources and adds it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `source_unavailable`, `conflict`; `overloaded`, `unavailable`.
    pub async fn register(&self, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
        self.may(Action::DefinitionRegister, kind.subject(id), &[Scope::Write])?;
        self.may_name(Action::DefinitionRegister, kind, id)?;
        let (system, subject, id) = (self.system.clone(), kind.subject(id).to_string(), id.to_owned());
        let ids = self.principal.ids().clone();
        let register = async move { system.register(kind, &id, ids).await };
        self.recorded(Action::DefinitionRegister, subject, register, registered).await
    }

    /// Fetches a definition again from the source that it came from, and tells whether that made a new revision.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict` where it came from none, `source_unavailable`, `precondition_failed` where it
    /// was written meanwhile; `overloaded`, `unavailable`.
    pub async fn refresh(&self, kind: Kind, id: &str) -> Result<(Arc<Compiled>, bool)> {
        self.may(Action::DefinitionRefresh, kind.subject(id), &[Scope::Write])?;
        self.sees(Action::DefinitionRefresh, kind, id)?;
        let (system, subject, id) = (self.system.clone(), kind.subject(id).to_string(), id.to_owned());
        let refresh = async move { system.refresh(kind, &id).await };
        let told = |(now, is_new): &(Arc<Compiled>, bool)| {
            ("ok", json!({ "revision": now.number, "changed": is_new }))
        };
        self.recorded(Action::DefinitionRefresh, subject, refresh, told).await
    }

    /// All definitions of a kind that a source lists.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `source_unavailable`; `overloaded`, `unavailable`.
    pub async fn list_source(&self, kind: Kind, source: &str) -> Result<Vec<Result<Definition>>> {
        self.may(Action::DefinitionImport, source, &[Scope::Write])?;
        self.system.list_source(kind, source).await
    }

    /// A page of the definitions that a filter matches.
    ///
    /// # Errors
    /// `forbidden`, `overloaded`, `unavailable`.
    pub async fn query(&self, kind: Kind, filter: Filter, page: PageRequest) -> Result<Page> {
        self.may(Action::DefinitionRead, kind.name(), &[Scope::Read])?;
        let filter = self.principal.ids().narrow(kind, filter)?;
        self.system.query(kind, filter, page).await
    }

    /// Runs a definition, without a session: gives the execution's uuid once it is accepted, and the way on which its
    /// outcome comes. It goes on when nobody waits for it.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`, `unprocessable`, `overloaded`, `draining`, `unavailable`.
    pub async fn execute(
        &self,
        kind: Kind,
        id: &str,
        input: RawObject,
        options: Options,
        traceparent: Option<String>,
    ) -> Result<Execution> {
        self.may(Action::ExecutionAccept, kind.subject(id), &[Scope::Execute])?;
        let definition = self.resolve(kind, id).await?;
        let job = self.job(Uuid::now_v7(), definition, input, options)?;
        self.system.execute(Job { traceparent, ..job }).await
    }

    /// Starts a session for a new connection, on which so many requests may be open at the same time.
    ///
    /// # Errors
    /// `forbidden`, `draining`, `overloaded`, `unavailable`.
    pub async fn open_session(
        &self,
        door: Door,
        traceparent: Option<String>,
        window: usize,
    ) -> Result<Connection> {
        self.may(Action::Enter, audit::Door::Websocket.name(), &[Scope::Execute])?;
        self.system.open_session(self, door, traceparent, window).await
    }

    /// What this id, name or range means, where it is kept ready and may be used.
    pub(crate) fn known(&self, kind: Kind, id: &str) -> Option<Arc<Compiled>> {
        self.system.known(kind, id).filter(|definition| self.principal.ids().has(&definition.id))
    }

    /// The definition that this id, bare name, `name:latest` or range means.
    pub(crate) async fn resolve(&self, kind: Kind, id: &str) -> Result<Arc<Compiled>> {
        let action = Action::ExecutionAccept;
        let resolved = self.system.resolve(self.client, kind, id).await;
        let mut definition = resolved
            .inspect_err(|error| self.trail().refused(&self.origin, action, kind.subject(id), error))?;
        if !self.principal.ids().has(&definition.id)
            && let Some(own) = self.resolve_among_own(kind, id).await?
        {
            definition = own;
        }
        self.sees(action, kind, &definition.id)?;
        Ok(definition)
    }

    /// What a name or a range means where there are only the ids that the principal may use.
    async fn resolve_among_own(&self, kind: Kind, id: &str) -> Result<Option<Arc<Compiled>>> {
        let Some(request) = version::parse_request(id) else { return Ok(None) };
        let mut ids = match self.system.versions(kind, request.name()).await {
            Err(error) if error.code() == Code::NotFound => return Ok(None),
            ids => ids?,
        };
        ids.retain(|id| self.principal.ids().has(id));
        match version::pick(&request, ids.iter().map(String::as_str)) {
            Some(id) => self.system.get(kind, id).await.map(Some),
            None => Ok(None),
        }
    }

    /// An execution of this definition, of the principal.
    pub(crate) fn job(
        &self,
        uuid: Uuid,
        definition: Arc<Compiled>,
        input: RawObject,
        options: Options,
    ) -> Result<Job> {
        let (kind, id) = (definition.kind, definition.id.clone());
        let job = Job::new(uuid, definition, input, options, self.client, self.origin.clone());
        let job = job.inspect_err(|error| {
            self.trail().refused(&self.origin, Action::ExecutionAccept, kind.subject(&id), error);
        })?;
        Ok(Job { max_open: self.principal.max_open(), ..job })
    }

    /// Ends an execution, wherever it is; its caller is told in the usual way.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `unavailable`.
    pub async fn cancel(&self, uuid: Uuid) -> Result<Cancelled> {
        self.may_cancel(uuid).await?;
        self.cancel_own(uuid).await
    }

    async fn may_cancel(&self, uuid: Uuid) -> Result<()> {
        self.may(Action::ExecutionCancel, uuid, &[Scope::Execute])?;
        self.owns(Action::ExecutionCancel, uuid).await
    }

    /// The same, and comes back when its end is on record: from then on it does not run, whatever dies.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `unavailable`.
    pub async fn cancel_for_good(&self, uuid: Uuid) -> Result<Cancelled> {
        self.may_cancel(uuid).await?;
        let system = self.system.clone();
        self.cancel_recorded(uuid, async move { system.cancel_for_good(uuid).await }).await
    }

    /// What is known of an execution.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `unavailable`.
    pub async fn execution(&self, uuid: Uuid) -> Result<Snapshot> {
        self.may(Action::ExecutionRead, uuid, &FOLLOW)?;
        let snapshot = self.system.execution(uuid).await?;
        self.is_own(Action::ExecutionRead, &snapshot)?;
        Ok(snapshot)
    }

    /// The end of what an execution printed until now.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; `unavailable`.
    pub async fn execution_log(&self, uuid: Uuid) -> Result<String> {
        self.may(Action::ExecutionRead, uuid, &FOLLOW)?;
        self.owns(Action::ExecutionRead, uuid).await?;
        self.system.execution_log(uuid).await
    }

    /// A page of executions, the newest first.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`.
    pub async fn executions(&self, request: ExecutionRequest) -> Result<ExecutionPage> {
        self.may(Action::ExecutionRead, "", &FOLLOW)?;
        let client = if self.sees_all() { request.client } else { Some(self.client) };
        self.system.executions(ExecutionRequest { client, ..request }).await
    }

    /// Refuses an execution of another principal as if it were not there.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub(crate) async fn owns(&self, action: Action, uuid: Uuid) -> Result<()> {
        if self.sees_all() {
            return Ok(());
        }
        self.is_own(action, &self.system.execution(uuid).await?)
    }

    fn is_own(&self, action: Action, snapshot: &Snapshot) -> Result<()> {
        if self.sees_all() || snapshot.client == self.client {
            return Ok(());
        }
        let refused = Error::new(Code::Forbidden, "this is an execution of another principal");
        self.trail().refused(&self.origin, action, snapshot.uuid, &refused);
        Err(super::executions::unknown())
    }

    /// The tree at this moment.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn picture(&self) -> Result<Picture> {
        self.may(Action::ServiceRead, "system", &[Scope::Read])?;
        Ok(self.system.picture().await)
    }

    /// What is known of all API keys, the oldest first.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn keys(&self) -> Result<Vec<About>> {
        self.may(Action::KeyRead, "", &[Scope::Admin])?;
        Ok(self.system.inner.keyring.all())
    }

    /// Makes an API key, which is shown this once.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `conflict`; `overloaded`, `unavailable`.
    pub async fn create_key(&self, new: NewKey) -> Result<Issued> {
        self.may(Action::KeyCreate, "", &[Scope::Admin])?;
        self.may_beyond_ids(Action::KeyCreate, "")?;
        self.create_key_recorded(new).await
    }

    /// Revokes an API key: its sessions end.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `conflict`; `overloaded`, `unavailable`.
    pub async fn revoke_key(&self, id: KeyId) -> Result<About> {
        let subject = format!("key/{id}");
        self.may(Action::KeyRevoke, &subject, &[Scope::Admin])?;
        self.may_beyond_ids(Action::KeyRevoke, &subject)?;
        let system = self.system.clone();
        let revoke = async move { system.revoke_key(id).await };
        self.recorded(Action::KeyRevoke, subject, revoke, |about| ("ok", about.detail())).await
    }

    /// Entries of the audit log; those of the last moment too where it is read from its beginning.
    ///
    /// # Errors
    /// `forbidden`, `overloaded`, `unavailable`.
    pub async fn audit(&self, page: audit::PageRequest, is_first: bool) -> Result<audit::Page> {
        self.may(Action::AuditRead, "audit", &[Scope::Admin])?;
        self.system.audit(page, is_first).await
    }

    /// Whether the audit log is whole, and whether a head that was noted earlier is in it.
    ///
    /// # Errors
    /// `forbidden`, `invalid`, `overloaded`, `unavailable`.
    pub async fn verify_audit(&self, noted: Option<String>) -> Result<Report> {
        self.may(Action::AuditRead, "audit", &[Scope::Admin])?;
        self.system.verify_audit(noted).await
    }

    /// Refuses who may not read what is measured, which names the definitions of all.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn may_measure(&self) -> Result<()> {
        self.may(Action::ServiceRead, "metrics", &[Scope::Read])?;
        self.may_beyond_ids(Action::ServiceRead, "metrics")
    }

    /// Refuses who is bound to some ids what goes beyond them: the metrics, and keys that would not be bound.
    fn may_beyond_ids(&self, action: Action, subject: impl fmt::Display) -> Result<()> {
        if self.principal.ids().patterns().is_none() {
            return Ok(());
        }
        let error = Error::new(Code::Forbidden, "who is bound to some ids may not do what goes beyond them");
        self.trail().refused(&self.origin, action, subject, &error);
        Err(error)
    }

    fn sees_all(&self) -> bool {
        self.principal.has(&[Scope::Admin])
    }
}
