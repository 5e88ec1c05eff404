//! Why does a backend refuse the gateway itself, and what mends it?
//!
//! Words for the operator: the log, `/reports/backends` and `tollgate doctor`. Never for a caller,
//! who must learn nothing of the inside.

use http::StatusCode;

/// What refuses the gateway itself, as far as the answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnosis {
    /// The token is good, and its principal may not do this: a role is missing.
    RoleMissing,
    /// The token itself is not taken: a wrong audience, mostly of another cloud.
    TokenRefused,
    /// The token is of another tenant than the resource.
    WrongTenant,
    /// The key is not one of the resource's two.
    KeyRefused,
    /// The resource takes no keys, and it was asked with one.
    KeysDisabled,
    /// The resource is reached by a private endpoint alone, and this was not one.
    PublicAccessDisabled,
    /// The resource's firewall does not know where the gateway calls from.
    VirtualNetwork,
    /// A resource in a virtual network was asked by another name than its own.
    WrongEndpoint,
    /// The resource has no such deployment.
    DeploymentMissing,
    /// Something else.
    Unknown,
}

/// What the gateway had shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignIn {
    Token,
    Key,
    /// To a backend on this machine.
    Nothing,
}

/// A backend's answer, as far as it tells why.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    pub status: StatusCode,
    /// `error.code` of the body.
    pub code: Option<&'a str>,
    /// `error.message` of the body.
    pub message: Option<&'a str>,
    pub sign_in: SignIn,
}

/// Who was asked for what: the names that the advice is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The backend's name in the configuration.
    pub backend: &'a str,
    /// The host of its endpoint.
    pub host: &'a str,
    /// The deployment, by the backend's own name for it.
    pub deployment: Option<&'a str>,
    /// The object id of the identity that the token is of, where it is known.
    pub principal: Option<&'a str>,
}

/// The role that a gateway needs on each resource: it may infer, and nothing else.
const ROLE: &str = "Cognitive Services OpenAI User";

impl Diagnosis {
    /// Reads an answer. The texts are Azure's, as its users report them; where they are not
    /// recognised, the status and the way of signing in decide.
    pub fn of(refused: Refused<'_>) -> Self {
        let code = refused.code.unwrap_or_default();
        let message = refused.message.unwrap_or_default();
        match refused.status.as_u16() {
            // The one refusal of a token that comes as a 400.
            400 | 401 if message.contains("does not match resource tenant") => Self::WrongTenant,
            401 if code == "PermissionDenied" => Self::RoleMissing,
            401 => match refused.sign_in {
                SignIn::Token => Self::TokenRefused,
                SignIn::Key => Self::KeyRefused,
                SignIn::Nothing if message.contains("subscription key") => Self::KeyRefused,
                SignIn::Nothing if message.contains("token") => Self::TokenRefused,
                SignIn::Nothing => Self::Unknown,
            },
            403 => Self::of_forbidden(code, message),
            404 if code == "DeploymentNotFound" => Self::DeploymentMissing,
            _ => Self::Unknown,
        }
    }

    fn of_forbidden(code: &str, message: &str) -> Self {
        if code == "AuthenticationTypeDisabled" {
            Self::KeysDisabled
        } else if message.contains("Public access is disabled") {
            Self::PublicAccessDisabled
        } else if message.contains("use the correct endpoint") {
            Self::WrongEndpoint
        } else if message.contains("Virtual Network") || message.contains("Firewall rules") {
            Self::VirtualNetwork
        } else {
            Self::Unknown
        }
    }

    /// For programs: stable, in JSON and in the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::RoleMissing => "role_missing",
            Self::TokenRefused => "token_refused",
            Self::WrongTenant => "wrong_tenant",
            Self::KeyRefused => "key_refused",
            Self::KeysDisabled => "keys_disabled",
            Self::PublicAccessDisabled => "public_access_disabled",
            Self::VirtualNetwork => "virtual_network",
            Self::WrongEndpoint => "wrong_endpoint",
            Self::DeploymentMissing => "deployment_missing",
            Self::Unknown => "unknown",
        }
    }

    /// What is wrong and what mends it, in one line.
    pub fn advice(self, context: &Context<'_>) -> String {
        format!("{}: {}", self.what(context), self.mend(context))
    }

    /// What is wrong, without a full stop.
    pub fn what(self, context: &Context<'_>) -> String {
        let Context { host, .. } = *context;
        match self {
            Self::RoleMissing => {
                format!("the gateway's identity lacks the role `{ROLE}` on the resource behind {host}")
            }
            Self::TokenRefused => format!("{host} does not take the gateway's token"),
            Self::WrongTenant => {
                format!("the gateway's token is of another tenant than the resource behind {host}")
            }
            Self::KeyRefused => format!("{host} does not know the key of backend `{}`", context.backend),
            Self::KeysDisabled => format!("{host} takes no keys: local authentication is disabled there"),
            Self::PublicAccessDisabled => {
                format!(
                    "{host} was reached by its public address, and takes calls by a private endpoint only"
                )
            }
            Self::VirtualNetwork => {
                format!("the network rules of {host} shut out the address that the gateway calls from")
            }
            Self::WrongEndpoint => {
                format!("{host} is not the name by which a resource in a virtual network must be called")
            }
            Self::DeploymentMissing => match context.deployment {
                Some(deployment) => format!("{host} has no deployment `{deployment}`"),
                None => format!("{host} has no such deployment"),
            },
            Self::Unknown => format!("{host} refuses the gateway for a reason of its own"),
        }
    }

    /// What mends it: a command wherever one does.
    pub fn mend(self, context: &Context<'_>) -> String {
        let Context { backend, host, principal, .. } = *context;
        let resource = resource_name(host).unwrap_or("RESOURCE");
        let id = resource_id(resource);
        let cloud = cloud_domain(host);
        match self {
            Self::RoleMissing => format!(
                "run `az role assignment create --assignee {} --role \"{ROLE}\" --scope \"{id}\"`{}; a new \
                 role takes up to ten minutes to hold",
                principal.unwrap_or("PRINCIPAL-ID"),
                if principal.is_some() { "" } else { " (`tollgate doctor` names the PRINCIPAL-ID)" },
            ),
            Self::TokenRefused => format!(
                "set TOLLGATE_CLOUD to the resource's cloud, or `auth.audience` of backend `{backend}` to an \
                 audience that it takes: https://cognitiveservices.{cloud} or https://ai.{cloud}"
            ),
            Self::WrongTenant => format!(
                "use an identity of the tenant that `{resource}` is in (AZURE_CLIENT_ID names a user-assigned \
                 one), or give backend `{backend}` a key: {KEY_IN_CONFIG}"
            ),
            Self::KeyRefused => format!(
                "put the resource's key (`az cognitiveservices account keys list --name {resource} --resource-group GROUP`) where backend \
                 `{backend}` takes it from, or sign in without one: `\"auth\": {{\"kind\": \"entra\"}}`"
            ),
            Self::KeysDisabled => {
                format!(
                    "set `\"auth\": {{\"kind\": \"entra\"}}` on backend `{backend}`: it needs no key then"
                )
            }
            Self::PublicAccessDisabled => {
                format!("{}; `tollgate doctor` shows what the name resolves to", private_endpoint(host))
            }
            Self::VirtualNetwork => format!(
                "{}; or let the app's subnet in: `az cognitiveservices account network-rule add --name {resource} \
                 --resource-group GROUP --subnet SUBNET-ID`",
                private_endpoint(host)
            ),
            Self::WrongEndpoint => format!(
                "set `endpoint` of backend `{backend}` to the resource's own subdomain, such as \
                 https://RESOURCE.openai.{cloud}: not a region's name, and not a `privatelink` one"
            ),
            Self::DeploymentMissing => format!(
                "create it, or map the callers' name to what is there in `deployments` of backend `{backend}`: \
                 `az cognitiveservices account deployment list --name {resource} --resource-group GROUP --query \"[].name\" -o tsv`"
            ),
            Self::Unknown => "run `tollgate doctor`, and look at what the backend said".to_owned(),
        }
    }
}

const KEY_IN_CONFIG: &str = "`\"auth\": {\"kind\": \"api_key\", \"secret\": \"NAME-IN-KEY-VAULT\"}`";

/// Finds a resource by its subdomain, for a shell: nobody needs to know its group then.
pub fn resource_id(resource: &str) -> String {
    format!(
        "$(az cognitiveservices account list --query \"[?properties.customSubDomainName=='{resource}'].id\" -o tsv)"
    )
}

fn private_endpoint(host: &str) -> String {
    let zone = private_zone(host).unwrap_or_else(|| format!("privatelink.openai.{}", cloud_domain(host)));
    format!(
        "give the resource a private endpoint in the app's virtual network, link the private DNS zone `{zone}` to \
         that network (`az network private-dns link vnet create --zone-name {zone} …`), and keep {host} as endpoint"
    )
}

/// What stands behind a resource's own name in an endpoint, in every cloud.
const SUFFIXES: [&str; 8] = [
    ".openai.azure.com",
    ".openai.azure.us",
    ".openai.azure.cn",
    ".cognitiveservices.azure.com",
    ".cognitiveservices.azure.us",
    ".cognitiveservices.azure.cn",
    ".services.ai.azure.com",
    ".services.ai.azure.us",
];

/// Where the cloud that a host is in has its services.
fn cloud_domain(host: &str) -> &'static str {
    match host.rsplit('.').next() {
        Some("us") => "azure.us",
        Some("cn") => "azure.cn",
        _ => "azure.com",
    }
}

/// The resource's own name (its custom subdomain) and what stands behind it.
fn split_host(host: &str) -> Option<(&str, &'static str)> {
    let (suffix, name) =
        SUFFIXES.into_iter().find_map(|suffix| Some((suffix, host.strip_suffix(suffix)?)))?;
    let name = name.strip_suffix(".privatelink").unwrap_or(name);
    (!name.is_empty() && !name.contains('.')).then_some((name, suffix))
}

/// The custom subdomain of an Azure OpenAI or Foundry resource; `None` for other hosts.
pub fn resource_name(host: &str) -> Option<&str> {
    Some(split_host(host)?.0)
}

/// The private DNS zone that must answer for a host, such as `privatelink.openai.azure.com`; `None`
/// for hosts that are no Azure OpenAI or Foundry resource's.
pub fn private_zone(host: &str) -> Option<String> {
    Some(format!("privatelink{}", split_host(host)?.1))
}

/// The plain host, where somebody wrote the name of the private zone: no certificate has that one.
pub fn without_privatelink(host: &str) -> Option<String> {
    host.contains(".privatelink.").then(|| host.replacen(".privatelink.", ".", 1))
}

/// The principal that Azure names in a 401 of its newer kind, between backticks.
pub fn named_principal(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("principal `")?;
    let (principal, _) = rest.split_once('`')?;
    // It becomes part of a command.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '.' | '_');
    (!principal.is_empty() && principal.chars().all(is_plain)).then_some(principal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context<'static> = Context {
        backend: "eastus",
        host: "contoso-eastus.openai.azure.com",
        deployment: Some("gpt-4o-mini-ptu"),
        principal: Some("11111111-2222-3333-4444-555555555555"),
    };

    fn of(status: u16, code: &str, message: &str, sign_in: SignIn) -> Diagnosis {
        let status = StatusCode::from_u16(status).unwrap();
        Diagnosis::of(Refused { status, code: Some(code), message: Some(message), sign_in })
    }

    #[test]
    fn what_azure_says_is_told_apart() {
        use Diagnosis::*;
        use SignIn::{Key, Nothing, Token};
        let bad_key = "Access denied due to invalid subscription key or wrong API endpoint.";
        let bad_token = "Access token is missing, invalid, audience is incorrect \
                         (https://cognitiveservices.azure.us/ or https://ai.azure.us/), or have expired.";
        let lacks = "The principal `x` lacks the required data action `y` to perform `POST z` operation.";
        let vnet = "A Virtual Network is configured for this resource. Please use the correct endpoint for \
                    making requests. Check https://aka.ms/cogsvc-vnet for more details.";
        let public = "Public access is disabled. Please configure private endpoint.";
        let tenant = "Token tenant 1 does not match resource tenant.";
        for (status, code, message, sign_in, diagnosis) in [
            (401, "PermissionDenied", "Principal does not have access to API/Operation.", Token, RoleMissing),
            (401, "PermissionDenied", lacks, Token, RoleMissing),
            (401, "401", bad_token, Token, TokenRefused),
            (401, "Unauthorized", "", Token, TokenRefused),
            (401, "401", bad_key, Key, KeyRefused),
            (401, "Unauthorized", bad_key, Key, KeyRefused),
            (401, "401", bad_key, Nothing, KeyRefused),
            (401, "401", bad_token, Nothing, TokenRefused),
            (401, "401", "no", Nothing, Unknown),
            (400, "Tenant provided in token does not match resource token", tenant, Token, WrongTenant),
            (403, "AuthenticationTypeDisabled", "Key based authentication is disabled.", Key, KeysDisabled),
            (403, "403", public, Token, PublicAccessDisabled),
            (403, "403", "Access denied due to Virtual Network/Firewall rules.", Token, VirtualNetwork),
            (403, "403", vnet, Token, WrongEndpoint),
            (403, "403", "", Key, Unknown),
            (404, "DeploymentNotFound", "The API deployment for this…", Token, DeploymentMissing),
            (404, "404", "Resource not found", Token, Unknown),
            (400, "", "", Token, Unknown),
        ] {
            assert_eq!(of(status, code, message, sign_in), diagnosis, "{status} {code} {message}");
        }
    }

    #[test]
    fn advice_names_the_role_the_resource_and_the_zone() {
        for (diagnosis, words) in [
            (
                Diagnosis::RoleMissing,
                &[
                    "az role assignment create --assignee 11111111-2222-3333-4444-555555555555",
                    "--role \"Cognitive Services OpenAI User\"",
                    "customSubDomainName=='contoso-eastus'",
                ][..],
            ),
            (Diagnosis::TokenRefused, &["TOLLGATE_CLOUD", "`auth.audience`"]),
            (Diagnosis::WrongTenant, &["tenant", "contoso-eastus"]),
            (Diagnosis::KeyRefused, &["keys list", "`eastus`"]),
            (Diagnosis::KeysDisabled, &["\"kind\": \"entra\""]),
            (Diagnosis::PublicAccessDisabled, &["private endpoint", "privatelink.openai.azure.com"]),
            (Diagnosis::VirtualNetwork, &["privatelink.openai.azure.com", "network-rule add"]),
            (Diagnosis::WrongEndpoint, &["`endpoint` of backend `eastus`"]),
            (Diagnosis::DeploymentMissing, &["`gpt-4o-mini-ptu`", "`deployments`", "deployment list"]),
            (Diagnosis::Unknown, &["tollgate doctor"]),
        ] {
            let advice = diagnosis.advice(&CONTEXT);
            for word in words {
                assert!(advice.contains(word), "{advice}");
            }
            assert!(!advice.contains('\n'), "{advice}");
        }
    }

    #[test]
    fn the_zone_follows_the_endpoint_in_every_cloud() {
        for (host, zone) in [
            ("a.openai.azure.com", Some("privatelink.openai.azure.com")),
            ("a.openai.azure.us", Some("privatelink.openai.azure.us")),
            ("a.openai.azure.cn", Some("privatelink.openai.azure.cn")),
            ("a.cognitiveservices.azure.us", Some("privatelink.cognitiveservices.azure.us")),
            ("a.services.ai.azure.com", Some("privatelink.services.ai.azure.com")),
            ("a.privatelink.openai.azure.com", Some("privatelink.openai.azure.com")),
            ("eastus.api.cognitive.microsoft.com", None),
            ("127.0.0.1", None),
            (".openai.azure.com", None),
        ] {
            assert_eq!(private_zone(host).as_deref(), zone, "{host}");
        }
        let government = Context { host: "a.openai.azure.us", ..CONTEXT };
        for diagnosis in [
            Diagnosis::PublicAccessDisabled,
            Diagnosis::VirtualNetwork,
            Diagnosis::TokenRefused,
            Diagnosis::WrongEndpoint,
        ] {
            let advice = diagnosis.advice(&government);
            assert!(advice.contains("azure.us") && !advice.contains(".com"), "{advice}");
        }
        assert_eq!(
            without_privatelink("a.privatelink.openai.azure.us").as_deref(),
            Some("a.openai.azure.us")
        );
        assert_eq!(without_privatelink("a.openai.azure.us"), None);
    }

    #[test]
    fn the_principal_is_taken_from_azures_own_words_unless_it_could_be_a_command() {
        let message =
            |name: &str| format!("The principal `{name}` lacks the required data action `x` to perform");
        assert_eq!(named_principal(&message("1111-2222")), Some("1111-2222"));
        assert_eq!(named_principal(&message("$(rm -rf /)")), None);
        assert_eq!(named_principal("Principal does not have access to API/Operation."), None);
    }
}
