//! Legacy completions: is the request in order, and what is said in answer.

use serde_json::Value;

use super::ask::{Ask, limit};
use super::chat::stopped;
use super::dice::Dice;
use super::refusal::Refusal;
use super::reply::{Choice, Reply, Said, Shape};
use super::usage::Usage;
use super::words::{Piece, Text};

/// What an answer may have if the request says nothing of it.
const USUAL_TOKENS: u64 = 16;
const MAX_CHOICES: u64 = 128;
/// As many as Azure takes at once.
const MAX_PROMPTS: usize = 20;

pub(super) fn check(ask: &Ask) -> Result<(), Refusal> {
    let prompts = match &ask.body["prompt"] {
        // A request without a prompt continues an empty document.
        Value::Null | Value::String(_) => 1,
        Value::Array(items) if items.iter().all(Value::is_u64) => 1,
        Value::Array(items) => items.len(),
        other => return Err(Refusal::wrong_type("prompt", "a string or an array", other)),
    };
    if prompts > MAX_PROMPTS {
        let message = format!("Too many prompts: {prompts}, where {MAX_PROMPTS} are allowed.");
        return Err(Refusal::invalid_value("prompt", &message));
    }
    limit(&ask.body, "max_tokens", u64::MAX)?;
    limit(&ask.body, "n", MAX_CHOICES)?;
    Ok(())
}

pub(super) fn most_tokens(body: &Value) -> u64 {
    body["max_tokens"].as_u64().unwrap_or(USUAL_TOKENS)
}

pub(super) fn reply(ask: &Ask) -> Reply {
    let prompts = prompts(&ask.body["prompt"]);
    let each = ask.body["n"].as_u64().unwrap_or(1);
    let most = usize::try_from(most_tokens(&ask.body)).unwrap_or(usize::MAX);
    let room = most.min(ask.room(each * prompts.len() as u64));
    let mut choices = Vec::new();
    let mut said = 0;
    for (prompt, text) in prompts.iter().enumerate() {
        for answer in 0..each {
            let place = (prompt as u64) * each + answer;
            let choice = choose(ask, ask.seed.wrapping_add(place), room);
            said += choice.said.tokens();
            choices.push(echoed(ask, choice, text));
        }
    }
    Reply {
        shape: Shape::Completions,
        id: ask.id("cmpl-"),
        model: ask.model.clone(),
        created: ask.now,
        usage: Usage { prompt: ask.prompt_tokens, completion: said, ..Usage::default() },
        choices,
        logprobs: false,
        prompts: prompts.len(),
    }
}

fn choose(ask: &Ask, seed: u64, room: usize) -> Choice {
    let natural = ask.behaviour.reply_tokens;
    let whole = natural <= room;
    let text = Text::stock(Dice::new(seed).roll(), natural.min(room), whole);
    stopped(ask, text, if whole { "stop" } else { "length" })
}

/// With the prompt before it, if that is asked for.
fn echoed(ask: &Ask, choice: Choice, prompt: &str) -> Choice {
    match choice.said {
        Said::Text(text) if ask.body["echo"] == true => {
            let prompt = ask.encoding.pieces(prompt).into_iter().map(Piece::from);
            let echoed = prompt.chain(text.pieces().cloned()).collect();
            Choice { said: Said::Text(Text::Pieces(echoed)), finish: choice.finish }
        }
        said => Choice { said, ..choice },
    }
}

/// The prompts, as texts; those that are token ids are not said again, so an empty text will do.
fn prompts(prompt: &Value) -> Vec<&str> {
    match prompt {
        Value::String(text) => vec![text],
        Value::Array(items) if items.iter().any(|item| !item.is_u64()) => {
            items.iter().map(|item| item.as_str().unwrap_or_default()).collect()
        }
        _ => vec![""],
    }
}
