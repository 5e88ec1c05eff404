//! Chat completions: is the request in order, and what is said in answer.

use serde_json::Value;

use super::ask::{Ask, flag, limit, list};
use super::dice::Dice;
use super::model;
use super::refusal::Refusal;
use super::reply::{Choice, FILTERED, Reply, Said, Shape};
use super::usage::Usage;
use super::words::{Piece, Text};
use super::{schema, tools};

const ROLES: [&str; 6] = ["system", "assistant", "user", "function", "tool", "developer"];
/// Models that think do so for this long.
const REASONING_TOKENS: u64 = 64;
const MAX_CHOICES: u64 = 128;

/// Refuses what Azure refuses, before anything is counted.
pub(super) fn check(ask: &Ask) -> Result<(), Refusal> {
    let messages = &ask.body["messages"];
    let Value::Array(all) = messages else {
        return Err(match messages {
            Value::Null => Refusal::missing("messages"),
            other => Refusal::wrong_type("messages", "an array of objects", other),
        });
    };
    if all.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, \
                       but got an empty array instead.";
        return Err(Refusal::invalid(message, Some("messages"), Some("empty_array")));
    }
    all.iter().enumerate().try_for_each(|(index, message)| check_message(index, message))?;
    if model::reasons(&ask.model) && !ask.body["max_tokens"].is_null() {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                       'max_completion_tokens' instead.";
        let code = Some("unsupported_parameter");
        return Err(Refusal::invalid(message, Some("max_tokens"), code));
    }
    flag(&ask.body, "logprobs")?;
    list(&ask.body, "tools")?;
    list(&ask.body, "functions")?;
    limit(&ask.body, "max_tokens", u64::MAX)?;
    limit(&ask.body, "max_completion_tokens", u64::MAX)?;
    limit(&ask.body, "n", MAX_CHOICES)?;
    Ok(())
}

fn check_message(index: usize, message: &Value) -> Result<(), Refusal> {
    if !message.is_object() {
        let param = format!("messages[{index}]");
        return Err(Refusal::wrong_type(&param, "an object", message));
    }
    let param = format!("messages[{index}].role");
    match &message["role"] {
        Value::Null => return Err(Refusal::missing(&param)),
        Value::String(role) if ROLES.contains(&role.as_str()) => {}
        Value::String(role) => {
            let roles = ROLES.map(|role| format!("'{role}'")).join(", ");
            let message = format!("Invalid value: '{role}'. Supported values are: {roles}.");
            return Err(Refusal::invalid_value(&param, &message));
        }
        other => return Err(Refusal::wrong_type(&param, "a string", other)),
    }
    match &message["content"] {
        Value::Null | Value::String(_) | Value::Array(_) => Ok(()),
        other => {
            let param = format!("messages[{index}].content");
            Err(Refusal::wrong_type(&param, "one of a string or array of objects", other))
        }
    }
}

/// The most tokens that the request lets an answer have.
pub(super) fn most_tokens(body: &Value) -> Option<u64> {
    ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[*name].as_u64())
}

/// What is said in answer to a request that is in order.
pub(super) fn reply(ask: &Ask) -> Reply {
    let most = most_tokens(&ask.body).unwrap_or(u64::MAX);
    let reasoning = if model::reasons(&ask.model) { REASONING_TOKENS.min(most) } else { 0 };
    let wanted = ask.body["n"].as_u64().unwrap_or(1);
    let room = usize::try_from(most - reasoning).unwrap_or(usize::MAX).min(ask.room(wanted));
    let choices: Vec<_> =
        (0..wanted).map(|index| choose(ask, &mut Dice::new(ask.seed.wrapping_add(index)), room)).collect();
    let said: u64 = choices.iter().map(|choice| choice.said.tokens()).sum();
    Reply {
        shape: Shape::Chat,
        id: ask.id("chatcmpl-"),
        model: ask.model.clone(),
        created: ask.now,
        usage: Usage {
            prompt: ask.prompt_tokens,
            completion: said + reasoning * wanted,
            cached: ask.behaviour.cached_tokens.min(ask.prompt_tokens),
            reasoning: reasoning * wanted,
        },
        choices,
        logprobs: ask.body["logprobs"] == true,
        prompts: 1,
    }
}

fn choose(ask: &Ask, dice: &mut Dice, room: usize) -> Choice {
    if let Some(choice) = tools::choose(ask, dice, room) {
        return choice;
    }
    match ask.body["response_format"]["type"].as_str() {
        Some("json_object") => {
            let words = ask.behaviour.reply_tokens.clamp(1, 10_000);
            say_json(ask, &schema::object_of(dice, words), room)
        }
        Some("json_schema") => {
            let wanted = &ask.body["response_format"]["json_schema"]["schema"];
            say_json(ask, &schema::instance(wanted, dice), room)
        }
        _ => say_text(ask, dice, room),
    }
}

fn say_text(ask: &Ask, dice: &mut Dice, room: usize) -> Choice {
    let natural = ask.behaviour.reply_tokens;
    if let Some(tokens) = ask.behaviour.filtered_after.filter(|tokens| *tokens < natural.min(room)) {
        return stopped(ask, Text::stock(dice.roll(), tokens, false), FILTERED);
    }
    let whole = natural <= room;
    let text = Text::stock(dice.roll(), natural.min(room), whole);
    stopped(ask, text, if whole { "stop" } else { "length" })
}

fn say_json(ask: &Ask, value: &Value, room: usize) -> Choice {
    let (text, whole) = pieces(ask, &value.to_string(), room);
    stopped(ask, text, if whole { "stop" } else { "length" })
}

/// The tokens of `text`, as far as there is room; and whether there was.
pub(super) fn pieces(ask: &Ask, text: &str, room: usize) -> (Text, bool) {
    let mut pieces = ask.encoding.pieces(text);
    let whole = pieces.len() <= room;
    pieces.truncate(room);
    let pieces = pieces.into_iter().map(Piece::from).collect();
    (Text::Pieces(pieces), whole)
}

/// The answer, ended by the request's `stop` if that is said.
pub(super) fn stopped(ask: &Ask, text: Text, finish: &'static str) -> Choice {
    let stops: Vec<&str> = match &ask.body["stop"] {
        Value::String(stop) => vec![stop],
        Value::Array(stops) => stops.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let stops: Vec<_> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
    let until = if stops.is_empty() { None } else { text.until(&stops) };
    match until {
        Some(text) => Choice { said: Said::Text(text), finish: "stop" },
        None => Choice { said: Said::Text(text), finish },
    }
}
