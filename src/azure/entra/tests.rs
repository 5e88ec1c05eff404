use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const HOUR: Duration = Duration::from_hours(1);

/// The clock of a test that moves tokio's.
struct Paused(tokio::time::Instant);

impl Clock for Paused {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_000_000_000_000 + i64::try_from(self.elapsed().as_millis()).unwrap())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What an endpoint does when it is asked for the nth time: how long it takes, and the token with its life.
type Script = fn(usize) -> (Duration, Result<(String, Duration), TokenFailure>);

struct Endpoint {
    script: Script,
    asked: AtomicUsize,
    clock: Arc<Paused>,
}

impl Endpoint {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Source for Endpoint {
    async fn fetch(&self, _scope: &str) -> Result<Token, TokenFailure> {
        let (takes, answer) = (self.script)(self.asked.fetch_add(1, Ordering::SeqCst));
        tokio::time::sleep(takes).await;
        let (secret, life) = answer?;
        let life = i64::try_from(life.as_millis()).unwrap();
        Token::new(secret.into(), UnixMillis(self.clock.now().0 + life))
    }
}

struct Rig {
    tokens: Tokens,
    endpoint: Arc<Endpoint>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

fn before(script: Script) -> Rig {
    let clock = Arc::new(Paused(tokio::time::Instant::now()));
    let endpoint = Arc::new(Endpoint { script, asked: AtomicUsize::new(0), clock: clock.clone() });
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let tokens = Tokens::new(endpoint.clone(), clock, tasks.clone(), stop.clone());
    Rig { tokens, endpoint, tasks, stop }
}

impl Rig {
    async fn token(&self) -> Result<String, String> {
        let token = self.tokens.token(SCOPE).await.map_err(|failure| failure.to_string())?;
        Ok(token.secret.expose_secret().to_owned())
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn numbered(at: usize, life: Duration) -> (Duration, Result<(String, Duration), TokenFailure>) {
    (Duration::ZERO, Ok((format!("t{at}"), life)))
}

fn down() -> (Duration, Result<(String, Duration), TokenFailure>) {
    (Duration::ZERO, Err(TokenFailure::passing("500")))
}

#[tokio::test(start_paused = true)]
async fn a_hundred_requests_that_wait_are_one_question() {
    let rig = before(|at| (Duration::from_secs(10), numbered(at, HOUR).1));
    let waiting = (0..100).map(|_| rig.token());
    let answers = futures_util::future::join_all(waiting).await;
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("t0")), "{answers:?}");
    assert_eq!(rig.endpoint.asked(), 1, "an endpoint that takes 10 s still serves");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_up_does_not_take_the_question_with_it() {
    let rig = before(|at| (Duration::from_secs(10), numbered(at, HOUR).1));
    tokio::time::timeout(Duration::from_secs(1), rig.token()).await.expect_err("it hangs up");
    assert_eq!(rig.token().await.as_deref(), Ok("t0"));
    assert_eq!(rig.endpoint.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_given_up_after_a_while() {
    let rig = before(|at| (HOUR, numbered(at, HOUR).1));
    let began = tokio::time::Instant::now();
    assert!(rig.token().await.unwrap_err().contains("no answer within 15 s"));
    assert_eq!(began.elapsed(), FETCH);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_half_of_its_life_and_nobody_waits() {
    let rig = before(|at| numbered(at, HOUR));
    assert_eq!(rig.token().await.as_deref(), Ok("t0"));
    rig.wait(Duration::from_secs(1_799)).await;
    assert_eq!(rig.endpoint.asked(), 1);
    rig.wait(Duration::from_secs(2)).await;
    assert_eq!(rig.endpoint.asked(), 2);
    assert_eq!(rig.token().await.as_deref(), Ok("t1"));
}

#[tokio::test(start_paused = true)]
async fn while_renewing_fails_and_the_old_token_is_good_nobody_notices() {
    let rig = before(|at| if at == 0 { numbered(at, HOUR) } else { down() });
    for _ in 0..59 {
        assert_eq!(rig.token().await.as_deref(), Ok("t0"));
        rig.wait(Duration::from_mins(1)).await;
    }
    assert!(rig.endpoint.asked() > 100, "it is tried again: {}", rig.endpoint.asked());
    rig.wait(Duration::from_secs(40)).await;
    rig.token().await.expect_err("a stale one is never used");
}

#[tokio::test(start_paused = true)]
async fn what_was_down_serves_again_without_being_asked() {
    let rig = before(|at| if (1..400).contains(&at) { down() } else { numbered(at, HOUR) });
    rig.token().await.unwrap();
    rig.wait(HOUR).await;
    assert_eq!(rig.token().await.as_deref(), Ok("t400"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_a_failure_and_tried_again_in_a_moment() {
    let rig = before(|at| numbered(at, Duration::from_secs(29)));
    let failure = rig.token().await.unwrap_err();
    assert!(failure.contains("a stale one came, with 29 s to live"), "{failure}");
    assert_eq!(rig.endpoint.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_requests_is_no_flood_at_an_endpoint_that_fails() {
    let rig = before(|_| (Duration::ZERO, Err(TokenFailure::refused("no identity"))));
    for _ in 0..1_000 {
        assert_eq!(rig.token().await.unwrap_err(), "no identity");
    }
    assert_eq!(rig.endpoint.asked(), 1, "what the operator must mend is not tried again at once");
    rig.wait(FAILURE_HOLDS).await;
    rig.token().await.unwrap_err();
    assert_eq!(rig.endpoint.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hiccup_is_not_noticed() {
    let rig = before(|at| if at < 2 { down() } else { numbered(at, HOUR) });
    assert_eq!(rig.token().await.as_deref(), Ok("t2"));
}

#[tokio::test(start_paused = true)]
async fn scopes_do_not_wait_for_each_other() {
    let rig = before(|at| (Duration::from_secs(if at == 1 { 14 } else { 0 }), numbered(at, HOUR).1));
    rig.token().await.unwrap();
    let slow = rig.tokens.token("https://vault.azure.net/.default");
    let quick = tokio::time::timeout(Duration::from_millis(1), rig.token());
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(quick.expect("it waits for nobody").as_deref(), Ok("t0"));
    slow.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once_for_all_and_once_a_minute() {
    let rig = before(|at| (Duration::from_secs(2), numbered(at, HOUR).1));
    rig.token().await.unwrap();
    let renewals = (0..50).map(|_| rig.tokens.renew(SCOPE));
    assert!(futures_util::future::join_all(renewals).await.into_iter().all(|is_new| is_new));
    assert_eq!((rig.endpoint.asked(), rig.token().await.as_deref()), (2, Ok("t1")));
    // Its 401 comes late: there is a new one that it has not tried.
    assert!(rig.tokens.renew(SCOPE).await);
    rig.wait(RENEWAL_HELPS).await;
    assert!(!rig.tokens.renew(SCOPE).await, "the role is missing, not the token");
    assert_eq!(rig.endpoint.asked(), 2);
    rig.wait(RENEW_EVERY).await;
    assert!(rig.tokens.renew(SCOPE).await);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_is_nothing_new_to_try() {
    let rig = before(|_| numbered(0, HOUR));
    rig.token().await.unwrap();
    assert!(!rig.tokens.renew(SCOPE).await);
}

#[tokio::test(start_paused = true)]
async fn renewing_ends_with_the_gateway() {
    let rig = before(|at| numbered(at, HOUR));
    rig.token().await.unwrap();
    rig.stop.cancel();
    rig.tasks.close();
    rig.tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn azures_own_libraries_share_the_tokens() {
    let rig = before(|at| numbered(at, HOUR));
    let token = rig.tokens.get_token(&[SCOPE], None).await.unwrap();
    assert_eq!(token.token.secret(), "t0");
    assert_eq!(rig.token().await.as_deref(), Ok("t0"));
    assert_eq!(rig.endpoint.asked(), 1);
}

#[test]
fn no_token_can_be_printed() {
    let token = Token::new("hush".into(), UnixMillis(0)).unwrap();
    assert!(!format!("{token:?} {:?}", token.bearer()).contains("hush"));
    Token::new("two\nlines".into(), UnixMillis(0)).unwrap_err();
    Token::new("".into(), UnixMillis(0)).unwrap_err();
}
