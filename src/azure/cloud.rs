//! What follows from the choice of a cloud: where to sign in, for whom tokens are, and under which names
//! its services are found.
//!
//! The one place where such a name is written: elsewhere it would be right in one cloud only, and wrong in
//! the others without a word.

use crate::config::settings::Cloud;

/// The facts of one cloud.
///
/// Sources: Microsoft's [national clouds](https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud),
/// [private DNS zones](https://learn.microsoft.com/azure/private-link/private-endpoint-dns), the endpoints of
/// [Azure Government](https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure)
/// and of [Azure in China](https://learn.microsoft.com/azure/china/resources-developer-guide).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where tokens are got.
    pub authority: &'static str,
    /// How the issuer of callers' tokens begins in version 1; the tenant's id and a `/` follow.
    pub issuer_v1: &'static str,
    /// The same in version 2, where `/v2.0` follows as well. The keys are published at the first one.
    pub issuers_v2: &'static [&'static str],
    /// The scope of a token for Azure OpenAI.
    pub openai_scope: &'static str,
    /// The scope that Foundry's own endpoints want instead, where a cloud has them.
    pub foundry_scope: Option<&'static str>,
    /// The scope of a token for Key Vault: what its challenge names.
    pub key_vault_scope: &'static str,
    /// The scope of a token that is the password of a role in Azure Database for PostgreSQL:
    /// [`az account get-access-token --resource-type oss-rdbms`](https://learn.microsoft.com/azure/postgresql/flexible-server/how-to-configure-sign-in-azure-ad-authentication).
    pub postgres_scope: &'static str,
    /// The scope of a token for the Logs Ingestion API:
    /// <https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview>.
    pub logs_scope: &'static str,
    /// What names of its endpoints end in.
    pub logs_suffix: &'static str,
    /// What names of Azure OpenAI resources end in, the most usual first; each begins with a dot.
    pub openai_suffixes: &'static [&'static str],
    /// What names of Event Hubs namespaces end in.
    pub event_hubs_suffix: &'static str,
    pub event_hubs_zone: &'static str,
    /// What names of vaults end in.
    pub key_vault_suffix: &'static str,
    /// The private DNS zone of each of `openai_suffixes`, in their order.
    pub openai_zones: &'static [&'static str],
    pub key_vault_zone: &'static str,
    /// Where an operator looks.
    pub portal: &'static str,
}

const COMMERCIAL: Facts = Facts {
    authority: "https://login.microsoftonline.com",
    issuer_v1: "https://sts.windows.net",
    issuers_v2: &["https://login.microsoftonline.com"],
    openai_scope: "https://cognitiveservices.azure.com/.default",
    foundry_scope: Some("https://ai.azure.com/.default"),
    key_vault_scope: "https://vault.azure.net/.default",
    postgres_scope: "https://ossrdbms-aad.database.windows.net/.default",
    logs_scope: "https://monitor.azure.com/.default",
    logs_suffix: ".monitor.azure.com",
    openai_suffixes: &[".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"],
    event_hubs_suffix: ".servicebus.windows.net",
    event_hubs_zone: "privatelink.servicebus.windows.net",
    key_vault_suffix: ".vault.azure.net",
    openai_zones: &[
        "privatelink.openai.azure.com",
        "privatelink.cognitiveservices.azure.com",
        "privatelink.services.ai.azure.com",
    ],
    key_vault_zone: "privatelink.vaultcore.azure.net",
    portal: "https://portal.azure.com",
};

const US_GOV: Facts = Facts {
    authority: "https://login.microsoftonline.us",
    // The same as in the commercial cloud: Microsoft's answer 1190472 lists them.
    issuer_v1: "https://sts.windows.net",
    issuers_v2: &["https://login.microsoftonline.us"],
    openai_scope: "https://cognitiveservices.azure.us/.default",
    foundry_scope: Some("https://ai.azure.us/.default"),
    key_vault_scope: "https://vault.usgovcloudapi.net/.default",
    postgres_scope: "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
    logs_scope: "https://monitor.azure.us/.default",
    logs_suffix: ".monitor.azure.us",
    openai_suffixes: &[".openai.azure.us", ".cognitiveservices.azure.us"],
    event_hubs_suffix: ".servicebus.usgovcloudapi.net",
    event_hubs_zone: "privatelink.servicebus.usgovcloudapi.net",
    key_vault_suffix: ".vault.usgovcloudapi.net",
    openai_zones: &["privatelink.openai.azure.us", "privatelink.cognitiveservices.azure.us"],
    key_vault_zone: "privatelink.vaultcore.usgovcloudapi.net",
    portal: "https://portal.azure.us",
};

const CHINA: Facts = Facts {
    authority: "https://login.chinacloudapi.cn",
    issuer_v1: "https://sts.chinacloudapi.cn",
    issuers_v2: &["https://login.partner.microsoftonline.cn", "https://login.chinacloudapi.cn"],
    openai_scope: "https://cognitiveservices.azure.cn/.default",
    foundry_scope: None,
    key_vault_scope: "https://vault.azure.cn/.default",
    postgres_scope: "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
    logs_scope: "https://monitor.azure.cn/.default",
    logs_suffix: ".monitor.azure.cn",
    openai_suffixes: &[".openai.azure.cn", ".cognitiveservices.azure.cn"],
    event_hubs_suffix: ".servicebus.chinacloudapi.cn",
    event_hubs_zone: "privatelink.servicebus.chinacloudapi.cn",
    key_vault_suffix: ".vault.azure.cn",
    openai_zones: &["privatelink.openai.azure.cn", "privatelink.cognitiveservices.azure.cn"],
    key_vault_zone: "privatelink.vaultcore.azure.cn",
    portal: "https://portal.azure.cn",
};

/// The scope of a token for Event Hubs: one audience for all clouds, as in Microsoft's own libraries, which
/// know no other.
pub const EVENT_HUBS_SCOPE: &str = "https://eventhubs.azure.net/.default";

/// The facts of a cloud.
pub fn facts(cloud: Cloud) -> &'static Facts {
    match cloud {
        Cloud::Commercial => &COMMERCIAL,
        Cloud::UsGov => &US_GOV,
        Cloud::China => &CHINA,
    }
}

/// The scope of a backend's token: its own audience, written with or without `/.default`, else the
/// cloud's.
pub fn scope(cloud: Cloud, audience: Option<&str>) -> String {
    let Some(audience) = audience else { return facts(cloud).openai_scope.to_owned() };
    let audience = audience.strip_suffix("/.default").unwrap_or(audience);
    format!("{}/.default", audience.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_commercial_cloud_leaks_into_another() {
        for cloud in [Cloud::UsGov, Cloud::China] {
            // Azure Government has this one name of the commercial cloud.
            let told = format!("{:?}", facts(cloud)).replace("https://sts.windows.net", "");
            for name in [".com", "azure.net", "windows.net"] {
                assert!(!told.contains(name), "{cloud:?}: {name} in {told}");
            }
        }
    }

    #[test]
    fn each_suffix_has_its_zone() {
        for cloud in Cloud::ALL {
            let facts = facts(cloud);
            let zones: Vec<_> =
                facts.openai_suffixes.iter().map(|suffix| format!("privatelink{suffix}")).collect();
            assert_eq!(facts.openai_zones, zones);
        }
    }

    #[test]
    fn an_audience_is_a_scope_however_it_is_written() {
        let own = |audience| scope(Cloud::UsGov, audience);
        assert_eq!(own(None), "https://cognitiveservices.azure.us/.default");
        for audience in ["https://ai.azure.com", "https://ai.azure.com/", "https://ai.azure.com/.default"] {
            assert_eq!(own(Some(audience)), "https://ai.azure.com/.default");
        }
    }
}
