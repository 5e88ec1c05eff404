//! Refusals, in Azure's words.

use insta::assert_snapshot;

use super::*;

fn plain() -> Resource {
    Resource::new(Knobs::default())
}

#[tokio::test]
async fn a_request_without_an_api_version_or_to_an_unknown_path_finds_no_resource() {
    let path = "/openai/deployments/gpt-4o-mini/chat/completions";
    let v1 = "/openai/v1/chat/completion";
    for path in
        [path, &format!("{path}?api-version=soon"), "/openai/deployments/x/y?api-version=2024-10-21", v1]
    {
        let answer = plain().post(path, &hello()).await;
        assert_eq!(
            answer.refusal(),
            "404 Not Found\n{\"error\":{\"code\":\"404\",\"message\":\"Resource not found\"}}"
        );
        assert_ne!(answer.header("apim-request-id"), "");
    }
}

#[tokio::test]
async fn only_the_named_deployments_are_served() {
    let resource = Resource::new(Knobs { deployments: vec!["gpt-4o-mini".to_owned()], ..Knobs::default() });
    assert_eq!(resource.post(CHAT, &hello()).await.status, 200);
    let other = with(hello(), &json!({"model": "gpt-4o"}));
    assert_snapshot!(resource.post(V1_CHAT, &other).await.refusal(), @r#"
    404 Not Found
    {"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again."}}
    "#);
}

#[tokio::test]
async fn keys_and_tokens_are_asked_for_when_so_started() {
    let resource = Resource::new(Knobs { require_key: vec!["good".to_owned()], ..Knobs::default() });
    let keyed = async |key| resource.send("POST", CHAT, &[("api-key", key)], &hello().to_string()).await;
    assert_eq!(keyed("good").await.status, 200);
    assert_snapshot!(keyed("bad").await.refusal(), @r#"
    401 Unauthorized
    {"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}
    "#);
    let resource = Resource::new(Knobs { require_bearer: Some("good".to_owned()), ..Knobs::default() });
    let told = async |name, value| resource.send("POST", CHAT, &[(name, value)], &hello().to_string()).await;
    assert_eq!(told("authorization", "Bearer good").await.status, 200);
    assert_snapshot!(told("authorization", "Bearer bad").await.refusal(), @r#"
    401 Unauthorized
    {"error":{"code":"PermissionDenied","message":"Principal does not have access to API/Operation."}}
    "#);
    assert_snapshot!(told("api-key", "good").await.refusal(), @r#"
    403 Forbidden
    {"error":{"code":"AuthenticationTypeDisabled","message":"Key based authentication is disabled for this resource."}}
    "#);
    assert_snapshot!(told("x-none", "").await.refusal(), @r#"
    401 Unauthorized
    {"error":{"code":"401","message":"Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired."}}
    "#);
}

#[tokio::test]
async fn a_filtered_prompt_is_refused_with_the_filters_verdict() {
    let resource = Resource::new(Knobs { content_filter: Some("sesame".to_owned()), ..Knobs::default() });
    for text in ["open sesame", "[[content-filter]]"] {
        let answer = resource.post(CHAT, &json!({"messages": [{"role": "user", "content": text}]})).await;
        assert_eq!(answer.status, 400);
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!("content_filter"), &json!("prompt")));
        let inner = &error["innererror"];
        assert_eq!(inner["code"], "ResponsibleAIPolicyViolation");
        assert_eq!(inner["content_filter_result"]["violence"]["filtered"], true);
    }
}

#[tokio::test]
async fn stream_options_are_unknown_to_old_api_versions_and_where_told_so() {
    let body = streamed(&json!({"stream_options": {"include_usage": true}}));
    let at = |version: &str| format!("/openai/deployments/gpt-4o/chat/completions?api-version={version}");
    assert_snapshot!(plain().post(&at("2024-08-01-preview"), &body).await.refusal(), @r#"
    400 Bad Request
    {"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error","param":null,"code":null}}
    "#);
    for version in ["2024-09-01-preview", "2024-10-21"] {
        assert_eq!(plain().post(&at(version), &body).await.status, 200);
    }
    assert_eq!(plain().told("refuse-stream-options", &at("2024-10-21"), &body).await.status, 400);
    let resource = Resource::new(Knobs { refuse_stream_options: true, ..Knobs::default() });
    assert_eq!(resource.post(&at("2024-10-21"), &body).await.status, 400);
    assert_eq!(resource.post(&at("2024-10-21"), &streamed(&json!({}))).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let resource = plain();
    for (more, param) in [
        (json!({"messages": null}), "messages"),
        (json!({"messages": "Hi"}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "boss", "content": "Hi"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"n": 1000}), "n"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"tools": {}}), "tools"),
    ] {
        let answer = resource.post(CHAT, &with(hello(), &more)).await;
        assert_eq!(answer.status, 400, "{more}");
        let error = answer.json()["error"].clone();
        assert_eq!(
            (&error["type"], &error["param"]),
            (&json!("invalid_request_error"), &json!(param)),
            "{more}"
        );
    }
    assert_snapshot!(resource.post(V1_CHAT, &hello()).await.refusal(), @r#"
    400 Bad Request
    {"error":{"message":"Missing required parameter: 'model'.","type":"invalid_request_error","param":"model","code":"missing_required_parameter"}}
    "#);
    for body in ["", "not JSON", "{\"messages\":", "[]"] {
        assert_eq!(resource.send("POST", CHAT, NO_HEADERS, body).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn a_prompt_beyond_the_models_context_is_refused() {
    let answer = plain().told("context-tokens=10", CHAT, &hello()).await;
    assert_snapshot!(answer.refusal(), @r#"
    400 Bad Request
    {"error":{"message":"This model's maximum context length is 10 tokens. However, your messages resulted in 11 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}
    "#);
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(9_000)}]});
    let path = "/openai/deployments/gpt-4/chat/completions?api-version=2024-10-21";
    assert_eq!(plain().post(path, &long).await.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn every_refusal_can_be_asked_for() {
    for (words, status) in [
        ("error=bad-key", 401),
        ("error=no-token", 401),
        ("error=permission-denied", 401),
        ("error=key-auth-disabled", 403),
        ("error=public-access-disabled", 403),
        ("error=virtual-network", 403),
        ("error=resource-not-found", 404),
        ("error=deployment-not-found", 404),
        ("error=content-filter", 400),
        ("error=stream-options", 400),
        ("status=408", 408),
        ("status=429", 429),
        ("status=500", 500),
        ("status=502", 502),
        ("status=503", 503),
    ] {
        let answer = plain().told(words, CHAT, &hello()).await;
        assert_eq!(answer.status, status, "{words}");
        assert!(answer.json()["error"]["message"].is_string(), "{words}");
    }
    let network = plain().told("error=virtual-network", CHAT, &hello()).await;
    assert_snapshot!(network.refusal(), @r#"
    403 Forbidden
    policy-id: ThrowExceptionDueToTrafficDenied
    {"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}
    "#);
    assert_snapshot!(plain().told("status=429", CHAT, &hello()).await.refusal(), @r#"
    429 Too Many Requests
    retry-after: 10
    retry-after-ms: 10000
    {"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 10 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}
    "#);
}

#[tokio::test]
async fn a_throttled_request_is_told_to_wait_in_every_spelling() {
    for (words, name, value) in [
        ("retry-after=7", "retry-after", "7"),
        ("retry-after-ms=200", "retry-after-ms", "200"),
        ("reset-requests=3", "x-ratelimit-reset-requests", "3"),
        ("reset-tokens=-1", "x-ratelimit-reset-tokens", "-1"),
        ("misspelt-reset-tokens=0", "x-rate-limit-reset-tokens", "0"),
        ("misspelt-reset-requests=86400", "x-rate-limit-reset-requests", "86400"),
        ("no-retry-after", "retry-after", ""),
    ] {
        let answer = plain().told(&format!("status=429,{words}"), CHAT, &hello()).await;
        assert_eq!(answer.header(name), value, "{words}");
        let waits = answer.refusal().lines().count() - 2;
        assert_eq!(waits, usize::from(!value.is_empty()), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_minutes_tokens_and_requests_run_out_and_come_back() {
    for knobs in [
        Knobs { requests_per_minute: Some(2), ..Knobs::default() },
        // A request may cost 11 tokens of its prompt and 5 of its reply.
        Knobs { tokens_per_minute: Some(32), ..Knobs::default() },
    ] {
        let resource = Resource::new(knobs.clone());
        assert_eq!(resource.post(CHAT, &hello()).await.status, 200);
        assert_eq!(resource.post(CHAT, &hello()).await.status, 200);
        tokio::time::advance(Duration::from_secs(20)).await;
        let answer = resource.post(CHAT, &hello()).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "40"));
        assert_eq!(answer.header("retry-after-ms"), "40000");
        assert_eq!(answer.header("x-ratelimit-reset-requests") == "40", knobs.requests_per_minute.is_some());
        assert_eq!(answer.header("x-ratelimit-reset-tokens") == "40", knobs.tokens_per_minute.is_some());
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(resource.post(CHAT, &hello()).await.status, 200);
    }
}

#[tokio::test]
async fn a_word_that_is_not_understood_is_a_fault_of_the_test() {
    assert_snapshot!(plain().told("statsu=429", CHAT, &hello()).await.refusal(), @r#"
    400 Bad Request
    {"error":{"message":"`statsu=429` is no word of x-simulate: see `tollgate simulate --help`","type":"invalid_request_error","param":"x-simulate","code":null}}
    "#);
}
