//! Does the model call a tool, and with what?
//!
//! It does if the request demands it, or if the last message is the user's and speaks of a tool: one
//! word of a tool's name, of four letters or more, is enough ("weather" for `get_weather`). Once a tool
//! has answered, the model speaks.

use serde_json::Value;

use super::ask::Ask;
use super::chat;
use super::dice::Dice;
use super::reply::{Call, Choice, Said};
use super::schema;

/// What the request says of tools.
#[derive(Debug, PartialEq, Eq)]
enum Wish<'a> {
    Never,
    IfSpokenOf,
    Always,
    This(&'a str),
}

pub(super) fn choose(ask: &Ask, dice: &mut Dice, room: usize) -> Option<Choice> {
    if has_answer(&ask.body) {
        return None;
    }
    let tools: Vec<&Value> = members(&ask.body["tools"])
        .iter()
        .map(|tool| &tool["function"])
        .filter(|function| function["name"].is_string())
        .collect();
    if !tools.is_empty() {
        let wish = wish(&ask.body["tool_choice"]);
        let chosen = chosen(ask, &tools, &wish);
        return call_tools(ask, dice, room, &chosen).map(|choice| named(choice, &wish));
    }
    let functions: Vec<&Value> =
        members(&ask.body["functions"]).iter().filter(|function| function["name"].is_string()).collect();
    let wish = wish(&ask.body["function_call"]);
    let function = chosen(ask, &functions, &wish).first().copied()?;
    let (call, whole) = call(ask, dice, room, function);
    let finish = if whole { "function_call" } else { "length" };
    let said = Said::Function(call);
    Some(named(Choice { said, finish }, &wish))
}

/// A tool that was named ends in `stop`, like an answer.
fn named(choice: Choice, wish: &Wish) -> Choice {
    match wish {
        Wish::This(_) if choice.finish != "length" => Choice { finish: "stop", ..choice },
        _ => choice,
    }
}

fn call_tools(ask: &Ask, dice: &mut Dice, room: usize, chosen: &[&Value]) -> Option<Choice> {
    let mut calls = Vec::new();
    let mut finish = "tool_calls";
    let mut left = room;
    for function in chosen {
        let (call, whole) = call(ask, dice, left, function);
        left = left.saturating_sub(call.arguments.len());
        calls.push(call);
        if !whole {
            finish = "length";
            break;
        }
    }
    let said = Said::Calls(calls);
    (!chosen.is_empty()).then_some(Choice { said, finish })
}

fn call(ask: &Ask, dice: &mut Dice, room: usize, function: &Value) -> (Call, bool) {
    let name = function["name"].as_str().unwrap_or_default();
    let arguments = schema::arguments(&function["parameters"], dice).to_string();
    let (arguments, whole) = chat::pieces(ask, &arguments, room);
    let call = Call {
        id: ask.ids.prefixed("call_", 24),
        name: name.to_owned(),
        name_tokens: ask.encoding.count(name),
        arguments,
    };
    (call, whole)
}

/// `tool_choice` or `function_call`.
fn wish(choice: &Value) -> Wish<'_> {
    let word = choice.as_str().or_else(|| choice["mode"].as_str());
    let name = [&choice["function"]["name"], &choice["name"]];
    match (word, name.iter().find_map(|name| name.as_str())) {
        (Some("none"), _) => Wish::Never,
        (Some("required"), _) => Wish::Always,
        (_, Some(name)) => Wish::This(name),
        _ => Wish::IfSpokenOf,
    }
}

fn chosen<'a>(ask: &Ask, tools: &[&'a Value], wish: &Wish) -> Vec<&'a Value> {
    let request = last_words(&ask.body);
    let spoken_of = tools.iter().filter(|tool| is_spoken_of(tool, &request));
    let mut chosen: Vec<&Value> = match wish {
        Wish::Never => return Vec::new(),
        Wish::This(name) => {
            return tools.iter().filter(|tool| tool["name"] == *name).copied().collect();
        }
        Wish::IfSpokenOf | Wish::Always => spoken_of.copied().collect(),
    };
    if chosen.is_empty() && *wish == Wish::Always {
        chosen.extend(tools.first());
    }
    if ask.body["parallel_tool_calls"] == false {
        chosen.truncate(1);
    }
    chosen
}

fn is_spoken_of(tool: &Value, request: &str) -> bool {
    let name = tool["name"].as_str().unwrap_or_default().to_lowercase();
    name.split(|letter: char| !letter.is_alphanumeric())
        .any(|word| word.chars().count() >= 4 && request.contains(word))
}

/// What the user said last, in lower case; nothing if someone else spoke last.
fn last_words(body: &Value) -> String {
    let Some(message) = members(&body["messages"]).last() else {
        return String::new();
    };
    if message["role"] != "user" {
        return String::new();
    }
    match &message["content"] {
        Value::String(text) => text.to_lowercase(),
        parts => {
            let texts = members(parts).iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ").to_lowercase()
        }
    }
}

/// Has a tool answered since the user spoke?
fn has_answer(body: &Value) -> bool {
    let messages = members(&body["messages"]).iter().rev();
    messages
        .map(|message| message["role"].as_str().unwrap_or_default())
        .take_while(|role| *role != "user")
        .any(|role| matches!(role, "tool" | "function"))
}

fn members(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
