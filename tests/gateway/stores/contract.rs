//! The contract of `ports::Subscriptions`. The store is empty, or holds nothing of these products.

use serde_json::Value;
use tollgate::domain::actor::Actor;
use tollgate::domain::audit::{Action, Author};
use tollgate::domain::ids::Name;
use tollgate::domain::key::KeyHash;
use tollgate::domain::limit::Limits;
use tollgate::domain::subscription::{Change, Patch, Slot, State, Subscription, Tags};
use tollgate::domain::units::UnixMillis;
use tollgate::ports::{AuditQuery, Changed, Created, KeyHashes, ListQuery, New, Once, Subscriptions};

const ODD: &str = "Ünï\u{1F600}'; DROP TABLE subscriptions; --\u{202E}\"%_\\";

pub(crate) async fn keeps_the_contract(store: &dyn Subscriptions) {
    keeps_what_it_is_given(store).await;
    issues_once(store).await;
    keeps_ids_and_keys_apart(store).await;
    changes_with_the_audit_or_not_at_all(store).await;
    replaces_one_key(store).await;
    ends_for_good(store).await;
    touches_forwards(store).await;
    pages_through_lists(store).await;
    pages_through_the_audit(store).await;
}

pub(crate) fn subscription(id: &str) -> Subscription {
    Subscription {
        id: name(id),
        name: ODD.to_owned(),
        product: name("contract"),
        state: State::Active,
        owner: Some(ODD.to_owned()),
        cost_center: Some("4711".to_owned()),
        limits: Limits { requests_per_minute: Some(5), ..Limits::default() },
        notes: Some(format!("{ODD}\nsecond line")),
        tags: Tags::from([("team".to_owned(), ODD.to_owned())]),
        created_at: UnixMillis(1_700_000_000_123),
        expires_at: Some(UnixMillis(1_800_000_000_000)),
        last_used_at: None,
        primary_key_hint: "aaaa".to_owned(),
        secondary_key_hint: "bbbb".to_owned(),
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A hash of its own for each text.
fn hash(text: &str) -> KeyHash {
    tollgate::domain::key::Hasher::new(b"contract").hash(text)
}

pub(crate) fn keys(id: &str) -> KeyHashes {
    KeyHashes { primary: hash(&format!("{id} 1")), secondary: hash(&format!("{id} 2")) }
}

pub(crate) fn author(at: i64) -> Author {
    let actor = Actor::Person { tenant_id: "t".into(), object_id: ODD.into(), client_id: "c".into() };
    Author { actor, address: Some("2001:db8::1".parse().unwrap()), at: UnixMillis(at) }
}

async fn create(store: &dyn Subscriptions, subscription: &Subscription, once: Option<&Once>) -> Created {
    let keys = keys(subscription.id.as_str());
    let new = New { subscription, keys: &keys, once, action: Action::Issued };
    store.create(&new, &author(1_000)).await.unwrap()
}

fn patch(patch: Patch) -> Change {
    Change::Fields(Box::new(patch))
}

pub(crate) async fn audit_of(store: &dyn Subscriptions, id: &str) -> Vec<tollgate::domain::audit::Record> {
    let query = AuditQuery { subscription: Some(name(id)), limit: 100, ..AuditQuery::default() };
    store.audit(&query).await.unwrap()
}

async fn keeps_what_it_is_given(store: &dyn Subscriptions) {
    let kept = subscription("kept");
    assert_eq!(store.find(&kept.id).await.unwrap(), None);
    assert_eq!(create(store, &kept, None).await, Created::New);
    assert_eq!(store.find(&kept.id).await.unwrap().as_ref(), Some(&kept));
    for key in [keys("kept").primary, keys("kept").secondary] {
        assert_eq!(store.by_key(&key).await.unwrap().as_ref(), Some(&kept));
    }
    assert_eq!(store.by_key(&hash("nobody's")).await.unwrap(), None);
    let [record] = &audit_of(store, "kept").await[..] else { panic!("one entry") };
    let by = author(1_000);
    assert_eq!((&record.actor, record.address, record.at), (&by.actor, by.address, by.at));
    assert_eq!((record.action, &record.subscription_id), (Action::Issued, &kept.id));
    assert!(record.before.is_empty());
    assert_eq!(record.after["name"], ODD);
}

async fn issues_once(store: &dyn Subscriptions) {
    let once = Once { key: [1; 32], request: [2; 32], forget_before: UnixMillis(0) };
    assert_eq!(store.asked_before(&once).await.unwrap(), None);
    let first = subscription("once-1");
    assert_eq!(create(store, &first, Some(&once)).await, Created::New);
    let before = Created::Before(Box::new(first));
    assert_eq!(create(store, &subscription("once-2"), Some(&once)).await, before);
    assert_eq!(store.asked_before(&once).await.unwrap(), Some(before));
    let other = Once { request: [3; 32], ..once };
    assert_eq!(create(store, &subscription("once-2"), Some(&other)).await, Created::Conflict);
    assert_eq!(store.find(&name("once-2")).await.unwrap(), None);
    assert_eq!(audit_of(store, "once-2").await.len(), 0);
    // The first was made at 1,000.
    let later = Once { forget_before: UnixMillis(1_001), ..other };
    assert_eq!(store.asked_before(&later).await.unwrap(), None);
    assert_eq!(create(store, &subscription("once-2"), Some(&later)).await, Created::New);
    // That forgot the first. The second was made at 1,000 as well.
    assert_eq!(store.forget_requests(UnixMillis(1_000)).await.unwrap(), 0);
    assert!(store.asked_before(&other).await.unwrap().is_some());
    assert_eq!(store.forget_requests(UnixMillis(1_001)).await.unwrap(), 1);
    assert_eq!(store.asked_before(&other).await.unwrap(), None);
}

async fn keeps_ids_and_keys_apart(store: &dyn Subscriptions) {
    let one = subscription("apart");
    assert_eq!(create(store, &one, None).await, Created::New);
    assert_eq!(create(store, &one, None).await, Created::Taken);
    let (other, keys) = (subscription("apart-2"), keys("apart"));
    // In whichever slot the key is the other's.
    let crossed = KeyHashes { primary: hash("fresh"), secondary: keys.primary };
    let new = New { subscription: &other, keys: &crossed, once: None, action: Action::Imported };
    assert_eq!(store.create(&new, &author(1)).await.unwrap(), Created::Taken);
    assert_eq!(store.find(&other.id).await.unwrap(), None);
}

async fn changes_with_the_audit_or_not_at_all(store: &dyn Subscriptions) {
    let before = subscription("changed");
    create(store, &before, None).await;
    let change = patch(Patch {
        name: Some("new".to_owned()),
        product: Some(name("contract-2")),
        state: Some(State::Suspended),
        owner: Some(None),
        cost_center: Some(Some("1".to_owned())),
        limits: Some(Limits::default()),
        notes: Some(None),
        tags: Some(Tags::new()),
        expires_at: Some(None),
    });
    let after = before.with(&change).unwrap();
    let changed = store.change(&before.id, &change, &author(2_000)).await.unwrap();
    assert_eq!(changed, Changed::Done(Box::new(after.clone())));
    assert_eq!(store.find(&before.id).await.unwrap(), Some(after.clone()));
    let records = audit_of(store, "changed").await;
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].action, records[0].at), (Action::Changed, UnixMillis(2_000)));
    assert_eq!(
        (&records[0].before["state"], &records[0].after["state"]),
        (&"active".into(), &"suspended".into())
    );
    assert_eq!((&records[0].before["owner"], &records[0].after["owner"]), (&ODD.into(), &Value::Null));
    // What changes nothing has no entry.
    let again = store.change(&before.id, &change, &author(3_000)).await.unwrap();
    assert_eq!(again, Changed::Done(Box::new(after)));
    assert_eq!(audit_of(store, "changed").await.len(), 2);
    assert_eq!(store.change(&name("nobody"), &change, &author(1)).await.unwrap(), Changed::NotThere);
    assert_eq!(audit_of(store, "nobody").await.len(), 0);
}

async fn replaces_one_key(store: &dyn Subscriptions) {
    let id = name("replaced");
    create(store, &subscription("replaced"), None).await;
    for (slot, action) in
        [(Slot::Primary, Action::PrimaryKeyReplaced), (Slot::Secondary, Action::SecondaryKeyReplaced)]
    {
        let fresh = hash(&format!("{slot:?}"));
        // The same hint as before: it is a change all the same.
        let hint = if slot == Slot::Primary { "aaaa" } else { "cccc" };
        let change = Change::Key { slot, hash: fresh, hint: hint.to_owned() };
        let changed = store.change(&id, &change, &author(2_000)).await.unwrap();
        assert!(matches!(changed, Changed::Done(_)), "{changed:?}");
        let (old, other) = match slot {
            Slot::Primary => (keys("replaced").primary, keys("replaced").secondary),
            Slot::Secondary => (keys("replaced").secondary, hash("Primary")),
        };
        assert_eq!(store.by_key(&old).await.unwrap(), None);
        for good in [fresh, other] {
            assert_eq!(store.by_key(&good).await.unwrap().unwrap().id, id);
        }
        let record = audit_of(store, "replaced").await.remove(0);
        assert_eq!(record.action, action);
        let shown = format!("{record:?}");
        assert!(!shown.contains("hash"), "{shown}");
    }
    assert_eq!(store.find(&id).await.unwrap().unwrap().secondary_key_hint, "cccc");
}

async fn ends_for_good(store: &dyn Subscriptions) {
    let id = name("ended");
    create(store, &subscription("ended"), None).await;
    for at in [2_000, 3_000] {
        let ended = store.change(&id, &Change::End, &author(at)).await.unwrap();
        let Changed::Done(ended) = ended else { panic!("{ended:?}") };
        assert_eq!(ended.state, State::Ended);
    }
    let records = audit_of(store, "ended").await;
    assert_eq!((records.len(), records[0].action, records[0].at), (2, Action::Ended, UnixMillis(2_000)));
    let change = patch(Patch { state: Some(State::Active), ..Patch::default() });
    assert_eq!(store.change(&id, &change, &author(4_000)).await.unwrap(), Changed::HasEnded);
    let change = Change::Key { slot: Slot::Primary, hash: hash("ended again"), hint: "dddd".to_owned() };
    assert_eq!(store.change(&id, &change, &author(4_000)).await.unwrap(), Changed::HasEnded);
    assert_eq!(store.by_key(&keys("ended").primary).await.unwrap().unwrap().state, State::Ended);
}

async fn touches_forwards(store: &dyn Subscriptions) {
    create(store, &subscription("touched"), None).await;
    let uses = [(name("touched"), UnixMillis(5_000)), (name("nobody"), UnixMillis(1))];
    store.touch(&uses).await.unwrap();
    store.touch(&[(name("touched"), UnixMillis(4_000))]).await.unwrap();
    store.touch(&[]).await.unwrap();
    let touched = store.find(&name("touched")).await.unwrap().unwrap();
    assert_eq!(touched.last_used_at, Some(UnixMillis(5_000)));
    assert_eq!(audit_of(store, "touched").await.len(), 1);
}

async fn pages_through_lists(store: &dyn Subscriptions) {
    for number in 0..9 {
        let mut one = subscription(&format!("page-{number}"));
        one.product = name(if number % 2 == 0 { "even" } else { "odd" });
        one.owner = Some(format!("owner-{}", number % 3));
        create(store, &one, None).await;
    }
    let suspend = patch(Patch { state: Some(State::Suspended), ..Patch::default() });
    store.change(&name("page-2"), &suspend, &author(1)).await.unwrap();
    store.change(&name("page-4"), &Change::End, &author(1)).await.unwrap();
    let even = ListQuery { product: Some(name("even")), limit: 2, ..ListQuery::default() };
    let ids = async |query: &ListQuery| -> Vec<String> {
        store.list(query).await.unwrap().iter().map(|one| one.id.to_string()).collect()
    };
    // Those that have ended are left out, unless they are asked for.
    assert_eq!(ids(&even).await, ["page-0", "page-2"]);
    assert_eq!(ids(&ListQuery { after: Some(name("page-2")), ..even.clone() }).await, ["page-6", "page-8"]);
    assert_eq!(ids(&ListQuery { after: Some(name("page-8")), ..even.clone() }).await, [""; 0]);
    for (state, expected) in [
        (State::Active, vec!["page-0", "page-6"]),
        (State::Suspended, vec!["page-2"]),
        (State::Ended, vec!["page-4"]),
    ] {
        assert_eq!(ids(&ListQuery { state: Some(state), ..even.clone() }).await, expected);
    }
    let owner = ListQuery { owner: Some("owner-0".to_owned()), limit: 100, ..ListQuery::default() };
    assert_eq!(ids(&owner).await, ["page-0", "page-3", "page-6"]);
    let both = ListQuery { product: Some(name("odd")), ..owner };
    assert_eq!(ids(&both).await, ["page-3"]);
    for nobody in [ODD, "\0", "owner-0\0"] {
        let query = ListQuery { owner: Some(nobody.to_owned()), ..both.clone() };
        assert_eq!(ids(&query).await, [""; 0]);
    }
}

async fn pages_through_the_audit(store: &dyn Subscriptions) {
    let id = name("audited");
    create(store, &subscription("audited"), None).await;
    for number in 0..5 {
        let change = patch(Patch { name: Some(format!("name {number}")), ..Patch::default() });
        // Two at the same moment: none is lost between pages.
        store.change(&id, &change, &author(10_000 + number / 2)).await.unwrap();
    }
    let mut query = AuditQuery { subscription: Some(id), limit: 2, ..AuditQuery::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.audit(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.behind = Some((last.at, last.id));
        seen.extend(page);
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.windows(2).all(|pair| (pair[0].at, pair[0].id) > (pair[1].at, pair[1].id)));
    let (from, to) = (Some(UnixMillis(10_000)), Some(UnixMillis(10_001)));
    let query = AuditQuery { from, to, behind: None, limit: 100, ..query };
    assert_eq!(store.audit(&query).await.unwrap().len(), 2);
}
