//! From where a change is asked for, as far as that can be trusted: for the audit.
//!
//! Never `X-Forwarded-For`: whoever asks may write into it, and the Functions host puts its own front end there.

use core::net::{IpAddr, SocketAddr};
use std::convert::Infallible;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::HeaderMap;
use http::request::Parts;

/// `None` where nobody trustworthy knows it.
pub(super) struct Address(pub(super) Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // The server knows the peers that are not on this machine.
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        Ok(Self(peer.or_else(|| through_the_host(&parts.headers)).map(|address| address.to_canonical())))
    }
}

/// Who came in through the Functions host, by what Azure's front end says of them. A caller on this machine
/// could say the same; it has the keys of the gateway anyway.
fn through_the_host(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get("x-ms-invocation-id")?;
    let [client] = headers.get_all("client-ip").iter().collect::<Vec<_>>()[..] else { return None };
    let client = client.to_str().ok()?.trim();
    client.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| client.parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_front_end_says_through_the_host_is_taken() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            through_the_host(&headers).map(|address| address.to_string())
        };
        let host = ("x-ms-invocation-id", "1");
        assert_eq!(of(&[host, ("client-ip", "203.0.113.7:4711")]).as_deref(), Some("203.0.113.7"));
        assert_eq!(of(&[host, ("client-ip", "[2001:db8::1]:5")]).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&[host, ("client-ip", "2001:db8::1")]).as_deref(), Some("2001:db8::1"));
        for spoofed in [
            &[("client-ip", "203.0.113.7")][..],
            &[host, ("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")],
            &[host, ("client-ip", "203.0.113.7"), ("client-ip", "203.0.113.8")],
            &[host, ("client-ip", "localhost; DROP TABLE audit")],
        ] {
            assert_eq!(of(spoofed), None, "{spoofed:?}");
        }
    }
}
