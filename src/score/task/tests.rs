//! The task against an endpoint that goes from one state to another: whichever two these are, it is not asked more
//! often than its pauses allow, and every row ends once the endpoint works.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::super::breaker::Pauses;
use super::super::dialect::Dialect;
use super::super::room::Room;
use super::super::wire::ToCome;
use super::super::{Order, azureml};
use super::*;
use crate::backoff::Backoff;
use crate::tls::Mistrust;
use crate::value::Value;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
const PAUSES: Pauses = Pauses { backoff: Backoff { base: ms(4), cap: ms(40) }, slow_probe: ms(40), knock: ms(8) };
/// How long a state lasts.
const LASTS: Duration = ms(400);
/// Requests, descriptions and knocks in that time: the first ones with what isolating four rows takes, and one for each
/// quarter of the longest pause.
const ASKED_MAX: usize = 60 + 400 / 10;

/// What the endpoint says to a request and to the question for its description.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Scores,
    Status(u16),
    Fault(Answered),
}

/// Whether it has a description.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Describes {
    /// One that rows fit.
    Fitting,
    /// One that no row fits.
    Misfitting,
    No,
    /// As it answers requests.
    AsItAnswers,
}

#[derive(Debug)]
struct Scripted {
    says: Mutex<(Says, Describes)>,
    asked: AtomicUsize,
}

#[derive(Clone)]
struct ScriptedWire(Arc<Scripted>, Arc<dyn Dialect>);

impl ScriptedWire {
    fn now(&self) -> (Says, Describes) {
        let asked = self.0.asked.fetch_add(1, Ordering::Relaxed);
        // a task that asks on and on gives nobody else a turn, so it ends here
        assert!(asked < 100 * ASKED_MAX, "asked {asked} times");
        *self.0.says.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire for ScriptedWire {
    fn score(&self, request: Request, _key: Option<SecretString>) -> ToCome<(u64, Answer)> {
        let (says, _) = self.now();
        let mut details = Details { took: ms(1), ..Details::default() };
        let (outcome, values) = match says {
            Says::Scores => (Answered::Results, vec![Value::BigInt(1); request.rows]),
            Says::Status(code) => {
                details.status = Some(code);
                (Answered::Status(HttpStatus { code, model: None, function_failed: code == 500 }), Vec::new())
            }
            Says::Fault(outcome) => (outcome, Vec::new()),
        };
        let answer = Answer { outcome, values, details };
        Box::pin(async move {
            tokio::task::yield_now().await;
            (request.id, answer)
        })
    }

    fn description(&self, _key: Option<SecretString>) -> ToCome<Result<Fetched, Undescribed>> {
        let document = |columns: usize| {
            let row: Vec<i64> = vec![1; columns];
            let schema = serde_json::json!({"swagger": "2.0", "paths": {"/score": {"post": {
                "operationId": "RunMLService",
                "parameters": [{"in": "body", "name": "serviceInputPayload", "schema": {"type": "object",
                    "properties": {"data": {"type": "array", "items": {"type": "array",
                        "items": {"type": "integer", "format": "int64"}}, "format": "numpy.ndarray"}},
                    "example": {"data": [row]}}}],
                "responses": {"200": {"schema": {"type": "array", "items": {"type": "number"}}}}}}}});
            Ok(Fetched::Document(schema.to_string()))
        };
        let failed = |outcome| Err(Undescribed { outcome, why: format!("{outcome:?}") });
        let described = match self.now() {
            (_, Describes::Fitting) | (Says::Scores, Describes::AsItAnswers) => document(1),
            (_, Describes::Misfitting) => document(2),
            (_, Describes::No) => Ok(Fetched::Absent),
            (Says::Status(404), Describes::AsItAnswers) => Ok(Fetched::Absent),
            (Says::Status(code), Describes::AsItAnswers) => {
                failed(Answered::Status(HttpStatus { code, model: None, function_failed: false }))
            }
            (Says::Fault(outcome), Describes::AsItAnswers) => failed(outcome),
        };
        Box::pin(async move {
            tokio::task::yield_now().await;
            described
        })
    }

    fn knock(&self) -> ToCome<bool> {
        let is_heard = self.now().0 != Says::Fault(Answered::Unreachable);
        Box::pin(async move {
            tokio::task::yield_now().await;
            is_heard
        })
    }

    fn read_key(&self, _secret: &Secret) -> Result<SecretString, String> {
        unreachable!("no key is written")
    }

    fn dialect(&self) -> &dyn Dialect {
        &*self.1
    }
}

/// Every state an endpoint can be in.
fn states() -> Vec<(Says, Describes)> {
    // one of each class
    let statuses = [202, 400, 401, 404, 408, 409, 413, 424, 429, 500, 503, 599];
    let faults = [
        Answered::BadResponse,
        Answered::Unreachable,
        Answered::BadCertificate(Mistrust::Expired),
        Answered::Closed,
        Answered::TimedOut,
        Answered::Portal,
    ];
    let says = statuses.into_iter().map(Says::Status).chain(faults.into_iter().map(Says::Fault));
    let describes = [Describes::Fitting, Describes::No, Describes::AsItAnswers];
    let mut states: Vec<_> = says.flat_map(|says| describes.map(|describes| (says, describes))).collect();
    states.push((Says::Scores, Describes::Misfitting));
    states
}

/// How a job's rows fare against an endpoint that is in one state, then in another, then works.
async fn fares(first: (Says, Describes), second: (Says, Describes)) -> [usize; 2] {
    let url = "http://endpoint.test/score".parse().unwrap();
    let mut config = ScoreConfig::new("score", url, Arc::new(azureml::AzureMl::default()));
    config.timing.pauses = PAUSES;
    config.order = Order::None;
    let script = Arc::new(Scripted { says: Mutex::new(first), asked: AtomicUsize::new(0) });
    let (intake, incoming) = mpsc::channel(INTAKE_MAX);
    let room = Room::new(config.max_batch_count, 4);
    let wire = Box::new(ScriptedWire(script.clone(), config.dialect.clone()));
    let stop = CancellationToken::new();
    let task = Task::new(
        config,
        wire,
        room.left(),
        Arc::new(ScorerStatus::default()),
        watch::channel(None).0,
        Arc::new(Notify::new()),
        stop.clone(),
    );
    let task = tokio::spawn(task.run(incoming));
    // a row now and then, as on a slow stream
    let mut answers = Vec::new();
    let mut asked = [0; 2];
    for (phase, state) in [first, second].into_iter().enumerate() {
        *script.says.lock().unwrap() = state;
        let before = script.asked.load(Ordering::Relaxed);
        for _ in 0..20 {
            let (reply, answer) = oneshot::channel();
            let held = Arc::new(room.hold(1, 100).await.unwrap());
            let chunk = Chunk::new(0, vec![Value::array(vec![Value::BigInt(7)])]);
            intake.send(NewChunk { chunk, reply, held }).await.unwrap();
            answers.push(answer);
            tokio::time::sleep(LASTS / 20).await;
        }
        asked[phase] = script.asked.load(Ordering::Relaxed) - before;
    }
    *script.says.lock().unwrap() = (Says::Scores, Describes::Fitting);
    for answer in answers {
        let ended = tokio::time::timeout(Duration::from_secs(60), answer).await;
        let outcomes = ended.unwrap_or_else(|_| panic!("{first:?}, {second:?}: a row waits for ever"));
        assert_eq!(outcomes.unwrap().unwrap().len(), 1);
    }
    stop.cancel();
    let _ = task.await;
    asked
}

#[test]
fn no_two_states_of_an_endpoint_make_it_asked_without_a_pause() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let states = states();
    let most = runtime.block_on(async {
        let mut pairs = JoinSet::new();
        let at_once = Arc::new(Semaphore::new(300));
        for (first, second) in states.iter().flat_map(|first| states.iter().map(move |second| (*first, *second))) {
            let at_once = at_once.clone();
            pairs.spawn(async move {
                let _turn = at_once.acquire().await;
                (fares(first, second).await, first, second)
            });
        }
        let mut most = 0;
        while let Some(pair) = pairs.join_next().await {
            let (asked, first, second) = pair.unwrap();
            most = most.max(asked[0]).max(asked[1]);
            assert!(asked.iter().all(|asked| *asked <= ASKED_MAX), "{first:?}, then {second:?}: asked {asked:?} times");
        }
        most
    });
    assert!(most > 10, "the endpoint was asked");
}
