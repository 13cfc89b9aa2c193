//! Which addresses an endpoint may have. Everything that is not on the public internet is refused, unless the
//! operator has named it: a name in somebody's DNS must not lead a worker to its neighbours, to itself, or to the
//! metadata service of its cloud.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), bits)
}

/// IPv4 networks that are not public: IANA's special-purpose registry, and multicast.
const NOT_PUBLIC_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "carrier-grade NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(255, 255, 255, 255, 32), "broadcast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// All that is public in IPv6 is in here.
const GLOBAL_UNICAST_V6: Ipv6Net = v6(0x2000, 0, 3);

/// IPv6 networks that are not public. Those within global unicast are refused; the others are here for their names.
const NOT_PUBLIC_V6: [(Ipv6Net, &str); 9] = [
    (v6(0, 0, 128), "unspecified"),
    (v6(0x2001, 0, 23), "reserved for protocols"),
    (v6(0x2001, 0x0db8, 32), "for documentation"),
    (v6(0x2002, 0, 16), "6to4"),
    (v6(0x3fff, 0, 20), "for documentation"),
    (v6(0xfc00, 0, 7), "unique local"),
    (v6(0xfe80, 0, 10), "link-local"),
    (v6(0xfec0, 0, 10), "site-local"),
    (v6(0xff00, 0, 8), "multicast"),
];

/// IPv6 networks whose last 32 bits are an IPv4 address that is reached through them: mapped, and NAT64.
const EMBEDDING_V6: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
];

/// An address that an endpoint must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreachable {
    address: IpAddr,
    what: &'static str,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, what } = self;
        write!(
            f,
            "the address {address} is not public ({what}); where it is meant, name it or its network in allow_private"
        )
    }
}

impl std::error::Error for Unreachable {}

/// Which addresses a handler may call.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    allowed: Vec<IpNet>,
}

impl Reach {
    /// Everything public, and these networks or single addresses.
    pub(super) fn parse(allow_private: &[String]) -> Result<Self, Vec<String>> {
        let mut reach = Self::default();
        let mut problems = Vec::new();
        for text in allow_private {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => reach.allowed.push(network),
                Err(_) => problems.push(format!(
                    "has {text:?}, which is no network like 10.0.0.0/8 and no address like 127.0.0.1"
                )),
            }
        }
        if problems.is_empty() {
            Ok(reach)
        } else {
            Err(problems)
        }
    }

    /// Everything public, and these networks.
    pub(super) fn of(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether `address` may be called.
    pub(super) fn check(&self, address: IpAddr) -> Result<(), Unreachable> {
        let meant = really(address);
        let is_allowed = |net: &IpNet| net.contains(&meant) || net.contains(&address);
        match not_public(meant) {
            Some(what) if !self.allowed.iter().any(is_allowed) => Err(Unreachable { address, what }),
            _ => Ok(()),
        }
    }
}

/// The address that packets to `address` end up at.
fn really(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if EMBEDDING_V6.iter().any(|net| net.contains(&v6)) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

/// What `address` is, where it is not public.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => {
            let network = NOT_PUBLIC_V4.iter().find(|(net, _)| net.contains(&v4));
            network.map(|(_, what)| *what)
        }
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some("loopback"),
        IpAddr::V6(v6) => {
            let network = NOT_PUBLIC_V6.iter().find(|(net, _)| net.contains(&v6));
            let reserved = (!GLOBAL_UNICAST_V6.contains(&v6)).then_some("reserved");
            network.map(|(_, what)| *what).or(reserved)
        }
    }
}

/// Resolves names as the system does, but only to addresses within reach. It is asked for each new connection, and
/// what it returns is what is connected to: a name can't change its mind in between.
#[derive(Debug, Clone)]
pub(super) struct PublicOnly {
    reach: Arc<Reach>,
}

impl PublicOnly {
    pub(super) fn new(reach: Reach) -> Self {
        Self {
            reach: Arc::new(reach),
        }
    }
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.reach);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(within(&reach, found)?)
        })
    }
}

/// Those of the addresses that may be called; the reason against the first where there are none.
fn within(reach: &Reach, found: impl Iterator<Item = SocketAddr>) -> Result<Addrs, Unreachable> {
    let mut refused = None;
    let mut allowed = Vec::new();
    for address in found {
        match reach.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(unreachable) => refused = refused.or(Some(unreachable)),
        }
    }
    match refused {
        Some(unreachable) if allowed.is_empty() => Err(unreachable),
        _ => Ok(Box::new(allowed.into_iter())),
    }
}

#[cfg(test)]
mod tests;
