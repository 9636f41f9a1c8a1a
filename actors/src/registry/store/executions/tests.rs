//! What is written of executions is read again, also where an older version wrote it.

use serde_json::json;

use super::super::{Location, Memory, tests::revision};
use super::*;
use crate::audit::Origin;
use crate::execution::{Client, Ended, Failure, Input, Job, Options, Outcome, Progress, Runtime, State};
use crate::journal::Accepted;
use crate::secrets::Granted;

async fn opened() -> Store {
    Store::open(Location::Memory, Memory(128)).await.expect("opens")
}

fn compiled() -> Arc<Compiled> {
    Compiled::new(&revision("a")).expect("compiles")
}

fn accepted(definition: &Arc<Compiled>, number: u64, is_begun: bool, key: Option<&str>) -> Accepted {
    let client = Client::Address([127, 0, 0, 1].into());
    let job = Arc::new(Job {
        uuid: Uuid::now_v7(),
        definition: definition.clone(),
        runtime: Runtime::Binary,
        input: Input { text: format!(r#"{{"number":{number}}}"#) },
        options: Options { priority: 7, idempotency_key: key.map(Into::into), ..Options::default() },
        client,
        origin: Arc::new(Origin::recorded(client)),
        max_open: None,
        traceparent: Some("00-1-2-01".into()),
        log: None,
        kept: Arc::default(),
        secrets: Granted::default(),
    });
    Accepted { job, number, accepted_ms: 1_000 + number, is_begun }
}

fn ended(result: std::result::Result<&str, Failure>) -> Arc<Ended> {
    let state = if result.is_ok() { State::Succeeded } else { State::Failed };
    let outcome = Outcome { state, result: result.map(Into::into) };
    Arc::new(Ended {
        outcome,
        started_ms: Some(2_000),
        ended_ms: 3_000,
        attempts: 2,
        sandbox: Some(crate::settings::Level::Limits),
        log: Some("a line\n".into()),
    })
}

#[tokio::test]
async fn what_is_written_is_read() {
    let (store, definition) = (opened().await, compiled());
    let [good, bad, open] = [1, 2, 3].map(|number| accepted(&definition, number, number == 2, Some("k")));
    let failure = Failure { code: "exit_status".into(), message: "7 \"\u{1}".into() };
    let (succeeded, failed) = (ended(Ok(r#"{"a":1.0}"#)), ended(Err(failure)));
    let records = [
        Record::Accepted(good.clone()),
        Record::Accepted(bad.clone()),
        Record::Ended(good.job.uuid, succeeded.clone()),
        Record::Accepted(open.clone()),
        Record::Ended(bad.job.uuid, failed.clone()),
    ];
    store.append(&records, &[definition]).await.expect("written");
    for (accepted, ended) in [(&good, succeeded), (&bad, failed)] {
        let read = store.execution(accepted.job.uuid).await.expect("read").expect("there");
        let Progress::Ended(found) = &read.progress else { panic!("{read:?}") };
        assert_eq!((&found.outcome, &*read.input), (&ended.outcome, &*accepted.job.input.text));
        assert_eq!((found.started_ms, found.ended_ms, found.attempts), (Some(2_000), 3_000, 2));
        assert_eq!((found.sandbox, &found.log), (ended.sandbox, &ended.log));
        assert_eq!((read.id.as_str(), read.revision, read.accepted_ms), ("a", Some(1), accepted.accepted_ms));
    }
    let recovered = store.open_executions().await.expect("read");
    let [found] = recovered.executions.as_slice() else { panic!("{recovered:?}") };
    assert_eq!((recovered.last, found.uuid, &*found.input), (3, open.job.uuid, &*open.job.input.text));
    assert_eq!((found.options.priority, found.options.idempotency_key.as_deref()), (7, Some("k")));
    assert_eq!((found.attempts, found.traceparent.as_deref()), (0, Some("00-1-2-01")));
}

#[tokio::test]
async fn attempts_and_retries_are_counted_and_forgotten() {
    let (store, definition) = (opened().await, compiled());
    let (first, second) = (accepted(&definition, 1, true, None), accepted(&definition, 2, false, None));
    let mut records = vec![Record::Accepted(first.clone()), Record::Accepted(second.clone())];
    records.extend((1..=12).map(|number| Record::Retry(first.job.uuid, number)));
    records.push(Record::Attempt(first.job.uuid, 13));
    records.push(Record::Attempt(second.job.uuid, 1));
    store.append(&records, &[definition]).await.expect("written");
    let attempts = || async {
        let recovered = store.open_executions().await.expect("read");
        recovered.executions.iter().map(|open| (open.attempts, open.retries)).collect::<Vec<_>>()
    };
    assert_eq!(attempts().await, [(13, 12), (1, 0)]);
    store.forget(&[first.job.uuid.to_string()]).await.expect("removed");
    assert_eq!(attempts().await, [(1, 0)]);
    assert_eq!(store.all_keys("attempt", "").await.expect("read"), [format!("{}:1", second.job.uuid)]);
}

#[tokio::test]
async fn what_schema_3_wrote_is_read() {
    let (store, definition) = (opened().await, compiled());
    let new = accepted(&definition, 9, true, None);
    store.append(&[Record::Accepted(new.clone())], std::slice::from_ref(&definition)).await.expect("written");
    let (ended, open) = (Uuid::now_v7(), Uuid::now_v7());
    for (uuid, number) in [(ended, 1), (open, 2)] {
        let fields = json!({
            "key": uuid.to_string(), "number": number, "kind": "tool", "definition": "a",
            "definition_number": 1, "revision": &*definition.fingerprint, "input": "{\"a\":1e2}",
            "priority": 5, "client": "127.0.0.1", "accepted_ms": 1_000, "begun": true,
        });
        let sql = format!(
            "INSERT INTO execution [{{ id: '{uuid}', {} }}]",
            &fields.to_string()[1..].trim_end_matches('}')
        );
        store.execute(&sql, Vec::new()).await.expect("written");
    }
    let sql = format!(
        "INSERT INTO outcome [{{ id: '{ended}', key: '{ended}', state: 'failed', code: 'trap', message: 'm', \
         started_ms: NONE, ended_ms: 3000, attempts: 1 }}]; \
         INSERT INTO attempt [{{ id: '{open}:2', execution: '{open}', number: 2 }}]"
    );
    store.execute(&sql, Vec::new()).await.expect("written");
    let read = store.execution(ended).await.expect("read").expect("there");
    let Progress::Ended(found) = &read.progress else { panic!("{read:?}") };
    assert_eq!(found.outcome.result, Err(Failure { code: "trap".into(), message: "m".into() }));
    assert_eq!((&*read.input, read.accepted_ms, found.ended_ms), ("{\"a\":1e2}", 1_000, 3_000));
    let recovered = store.open_executions().await.expect("read");
    let found: Vec<_> =
        recovered.executions.iter().map(|open| (open.uuid, open.attempts, open.retries)).collect();
    assert_eq!(found, [(open, 2, 0), (new.job.uuid, 1, 0)]);
    assert_eq!(store.executions(None, 10).await.expect("read").len(), 3);
}
