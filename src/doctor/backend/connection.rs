//! Is somebody there, and is it who the name says?

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;

use super::Patient;
use crate::config::catalog::is_loopback;
use crate::doctor::in_time;
use crate::domain::diagnosis;
use crate::ports::with_causes;

/// Whether a connection opens, to one address at least, and TLS on it.
pub(super) async fn opens(patient: &Patient<'_>, addresses: &[IpAddr]) -> bool {
    let Patient { host, backend, report, .. } = patient;
    let Some(port) = backend.endpoint.port_or_known_default() else { return false };
    let mut why = String::new();
    for address in addresses {
        let opened = in_time(TcpStream::connect(SocketAddr::new(*address, port))).await;
        // Closed again at once: it must not hold up whoever takes one connection after the other.
        match opened.map(|opened| opened.map(drop)) {
            Some(Ok(())) => return is_who_it_says(patient).await,
            Some(Err(error)) => why = format!("{address}: {error}"),
            None => why = format!("{address} does not answer"),
        }
    }
    let mend = if is_loopback(host) {
        "start it, or mend `endpoint`".to_owned()
    } else {
        "let the app reach port 443: look at its network security group, its route table and the firewall on the \
         way (`az network watcher test-connectivity`)"
            .to_owned()
    };
    report.fault("no_connection", format!("no connection to {host} port {port} ({why})"), mend);
    false
}

/// Whether HTTP answers, whatever it says: over TLS only who has a certificate for the name can.
async fn is_who_it_says(patient: &Patient<'_>) -> bool {
    let Patient { host, backend, report, found } = patient;
    let asked = in_time(found.doctor.client.get(backend.endpoint.clone()).send()).await;
    let error = match asked {
        Some(Ok(_)) => {
            let how = if backend.endpoint.scheme() == "https" {
                format!("TLS with {host}: its certificate is good for that name")
            } else {
                format!("{host} answers, without TLS")
            };
            report.ok("reached", how);
            return true;
        }
        Some(Err(error)) => with_causes(&error.without_url()),
        None => "no answer in time".to_owned(),
    };
    let (code, what, mend) = explained(host, &error);
    report.fault(code, what, mend);
    false
}

/// What a failed handshake means. The texts are those of rustls, read without knowing its types.
fn explained(host: &str, error: &str) -> (&'static str, String, String) {
    let lower = error.to_ascii_lowercase();
    let plain = diagnosis::without_privatelink(host);
    if lower.contains("not valid for name") || lower.contains("notvalidforname") {
        (
            "wrong_certificate",
            format!("the certificate at {host} is for another name ({error})"),
            match plain {
                Some(plain) => format!("use the plain name, https://{plain}"),
                None => "use the resource's own subdomain, and look where its name resolves to: something else answers \
                         there"
                    .to_owned(),
            },
        )
    } else if lower.contains("certificate") {
        (
            "bad_certificate",
            format!("the certificate at {host} is not trusted ({error})"),
            "an inspecting firewall on the way shows a certificate of its own: let this name pass uninspected, or give \
             the machine that firewall's root certificate"
                .to_owned(),
        )
    } else {
        (
            "no_answer",
            format!("{host} takes the connection and gives no answer ({error})"),
            "look whether the port speaks what the endpoint's scheme says, and at the firewall on the way"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_apart() {
        let privatelink = "a.privatelink.openai.azure.com";
        let name =
            "invalid peer certificate: certificate not valid for name \"a.privatelink.openai.azure.com\"";
        let (code, _, mend) = explained(privatelink, name);
        assert_eq!(
            (code, mend.as_str()),
            ("wrong_certificate", "use the plain name, https://a.openai.azure.com")
        );
        for (error, code) in [
            ("invalid peer certificate: UnknownIssuer", "bad_certificate"),
            ("invalid peer certificate: Expired", "bad_certificate"),
            ("received corrupt message of type InvalidContentType", "no_answer"),
        ] {
            assert_eq!(explained("a.openai.azure.com", error).0, code, "{error}");
        }
    }
}
