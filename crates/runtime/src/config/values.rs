//! What a setting may be: each type parses from the text of a flag, a variable or the file, and says in its error
//! what is allowed.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use forebay_core::QueueName;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

/// An address to listen on. `:8080` means all interfaces, port 0 a port that the system chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddr(pub SocketAddr);

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "must be ADDRESS:PORT, such as 127.0.0.1:8080, [::1]:8080 or :8080".to_owned();
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self(addr));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(allowed)?;
        let port: u16 = port.parse().map_err(|_| allowed())?;
        match host {
            "" => Ok(Self((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into())),
            "localhost" => Ok(Self((IpAddr::V4(Ipv4Addr::LOCALHOST), port).into())),
            _ => Err(allowed()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses a duration such as `30s`, `5m`, `500ms`, `2h`, `7d` or `1m30s`.
///
/// # Errors
/// Where the text is anything else; the message says what is allowed.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a duration such as 500ms, 30s, 5m, 2h, 7d or 1m30s".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// As [`duration`], and not zero.
///
/// # Errors
/// Where it is zero, or none.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        positive => Ok(positive),
    }
}

/// A number of bytes: `1073741824`, `512MiB`, `10GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be a number of bytes, such as 1073741824, 512MiB or 10GiB".to_owned();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit: u64 = match text[digits..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

/// Several values, separated by commas; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> FromStr for List<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            items.push(part.parse().map_err(|problem| format!("{part:?} {problem}"))?);
        }
        if items.is_empty() {
            return Err("must name at least one, and separates several by commas".to_owned());
        }
        Ok(Self(items))
    }
}

/// Parses the queues that a worker reads. Forebay's own is none of them.
///
/// # Errors
/// Where the text is anything else; the message says what is allowed.
pub fn queues(text: &str) -> Result<List<QueueName>, String> {
    let queues = text.parse::<List<QueueName>>()?;
    match queues.0.iter().find(|queue| queue.is_reserved()) {
        Some(own) => Err(format!(
            "{own:?} is Forebay's own, for the deliveries of webhooks"
        )),
        None => Ok(queues),
    }
}

/// A network such as `10.0.0.0/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(Self)
            .map_err(|_| "must be a network such as 10.0.0.0/8, or an address such as 127.0.0.1")
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json"),
        }
    }
}

/// Reads whether something is wanted.
///
/// # Errors
/// Where it is neither `true` nor `false`.
pub fn yes_or_no(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false"),
    }
}

/// Checks a log filter, such as `info` or `info,forebay_worker=debug`.
///
/// # Errors
/// Where a directive of it can't be parsed.
pub fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(problem) => Err(format!(
            "must be a level or directives such as info,forebay_worker=debug ({problem})"
        )),
    }
}

/// Checks the address of an OTLP receiver.
///
/// # Errors
/// Where it is not an `http://` URL with a host.
pub fn otlp_endpoint(text: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(text.to_owned()),
        _ => Err("must be an http:// URL of an OTLP/gRPC receiver, such as http://127.0.0.1:4317".to_owned()),
    }
}

/// Checks the address of a Forebay server.
///
/// # Errors
/// Where it is no http URL with a host.
pub fn server_url(text: &str) -> Result<url::Url, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("must be an http:// or https:// URL, such as http://127.0.0.1:8080".to_owned()),
    }
}

/// What a worker process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Writes submissions into the store.
    Recorder,
    /// Runs tasks.
    Executor,
    /// Publishes what became due, and takes back the tasks of dead workers.
    Dispatcher,
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "recorder" => Ok(Self::Recorder),
            "executor" => Ok(Self::Executor),
            "dispatcher" => Ok(Self::Dispatcher),
            _ => Err("is no role: must be recorder, executor or dispatcher"),
        }
    }
}

/// A URL that may hold a password. It prints masked.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The URL with its password: for the driver alone.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(self.expose()))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// Which store.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// `postgres://…`
    Postgres(SecretUrl),
    /// `sqlite://PATH`
    Sqlite(PathBuf),
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let allowed = "must be postgres://USER:PASSWORD@HOST/DATABASE or sqlite://PATH";
        match text.split_once("://") {
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                Ok(Self::Postgres(SecretUrl::new(text)))
            }
            Some(("sqlite", path)) if !path.is_empty() && !path.contains('?') && path != ":memory:" => {
                Ok(Self::Sqlite(Path::new(path).to_owned()))
            }
            _ => Err(allowed),
        }
    }
}

/// Which broker.
#[derive(Debug, Clone)]
pub enum BrokerUrl {
    /// `nats://…` or `tls://…`, several separated by commas.
    Nats(SecretUrl),
    /// `amqp://…` or `amqps://…`, several separated by commas.
    RabbitMq(SecretUrl),
    /// `embedded://`: the SQLite store itself.
    Embedded,
}

impl FromStr for BrokerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once("://") {
            Some(("nats" | "tls", rest)) if !rest.is_empty() => Ok(Self::Nats(SecretUrl::new(text))),
            Some(("embedded", "")) => Ok(Self::Embedded),
            Some(("amqp" | "amqps", rest)) if !rest.is_empty() => Ok(Self::RabbitMq(SecretUrl::new(text))),
            _ => Err(
                "must be nats://HOST:4222, tls://HOST:4222, amqp://HOST:5672/VHOST, amqps://HOST:5671/VHOST (several \
                 separated by commas) or embedded://",
            ),
        }
    }
}

/// Hides what is secret in a value that may be a URL, or a list of them: the password, a token that stands in
/// place of a user, and query parameters that sound like one.
#[must_use]
pub fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, after) = rest.split_at(at + 3);
        // Up to where the next URL of a list begins: a password may hold any character if its author forgot to
        // escape it, so what is before the last @ counts as secret.
        let end = after.find("://").map_or(after.len(), |next| {
            after[..next].rfind(',').map_or(next, |comma| comma)
        });
        out.push_str(scheme);
        out.push_str(&masked_after_scheme(scheme, &after[..end]));
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

fn masked_after_scheme(scheme: &str, text: &str) -> String {
    let token_alone = scheme.ends_with("nats://") || scheme.ends_with("tls://");
    let masked = match text.rsplit_once('@') {
        None => text.to_owned(),
        Some((userinfo, host)) => match userinfo.split_once(':') {
            Some((user, _)) => format!("{user}:****@{host}"),
            None if token_alone || userinfo.contains('/') => format!("****@{host}"),
            None => text.to_owned(),
        },
    };
    let Some((before, query)) = masked.split_once('?') else {
        return masked;
    };
    let pairs: Vec<String> = query.split('&').map(masked_parameter).collect();
    format!("{before}?{}", pairs.join("&"))
}

fn masked_parameter(pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _))
            if ["password", "secret", "token"]
                .iter()
                .any(|word| name.contains(word)) =>
        {
            format!("{name}=****")
        }
        _ => pair.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in [
            "",
            "30",
            "s",
            "5 m",
            "-1s",
            "1.5h",
            "1y",
            "99999999999999999999s",
            "5mä",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn an_address_without_host_means_all_interfaces() {
        let parse = |text: &str| text.parse::<ListenAddr>().map(|addr| addr.to_string());
        assert_eq!(parse(":50051").as_deref(), Ok("0.0.0.0:50051"));
        assert_eq!(parse("localhost:0").as_deref(), Ok("127.0.0.1:0"));
        assert_eq!(parse("[::1]:80").as_deref(), Ok("[::1]:80"));
        for bad in ["", "8080", "host:80", ":", ":65536", "http://127.0.0.1:80"] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!("10GiB".parse(), Ok(ByteSize(10 << 30)));
        assert_eq!("17".parse(), Ok(ByteSize(17)));
        for bad in ["", "GiB", "1GB", "-1", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn lists_name_the_item_at_fault() {
        let roles: List<Role> = "recorder, dispatcher".parse().unwrap();
        assert_eq!(roles.0, [Role::Recorder, Role::Dispatcher]);
        let error = "recorder,boss".parse::<List<Role>>().unwrap_err();
        assert!(error.contains("\"boss\""), "{error}");
        assert!(",".parse::<List<Role>>().is_err());
    }

    #[test]
    fn schemes_choose_the_backend() {
        assert!(matches!("postgresql://h/d".parse(), Ok(DatabaseUrl::Postgres(_))));
        assert!(
            matches!("sqlite:///var/f.db".parse(), Ok(DatabaseUrl::Sqlite(p)) if p == Path::new("/var/f.db"))
        );
        assert!("mysql://h/d".parse::<DatabaseUrl>().is_err());
        assert!("sqlite://:memory:".parse::<DatabaseUrl>().is_err());
        assert!(matches!("nats://a:1,nats://b:2".parse(), Ok(BrokerUrl::Nats(_))));
        assert!(matches!("embedded://".parse(), Ok(BrokerUrl::Embedded)));
        for text in ["amqp://u:p@h", "amqps://h:5671/v,amqps://i:5671/v"] {
            assert!(matches!(text.parse(), Ok(BrokerUrl::RabbitMq(_))), "{text}");
        }
        for text in ["amqp://", "kafka://h", "h:4222", ""] {
            let error = text.parse::<BrokerUrl>().unwrap_err();
            assert!(error.contains("amqp://HOST:5672"), "{error}");
        }
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        for (plain, shown) in [
            (
                "postgres://u:geheim@h:5432/d?sslmode=require",
                "postgres://u:****@h:5432/d?sslmode=require",
            ),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://u:p@ss/w:ord@h/d", "postgres://u:****@h/d"),
            (
                "postgres://h/d?user=u&password=geheim",
                "postgres://h/d?user=u&password=****",
            ),
            ("nats://token@h:4222", "nats://****@h:4222"),
            (
                "amqp://u:p@a:1/v,amqp://u:q@b:2/v",
                "amqp://u:****@a:1/v,amqp://u:****@b:2/v",
            ),
            (
                "nats://u:p@a:1,nats://u:q@b:2",
                "nats://u:****@a:1,nats://u:****@b:2",
            ),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("", ""),
        ] {
            assert_eq!(masked(plain), shown);
        }
        let url = SecretUrl::new("postgres://u:geheim@h/d");
        assert!(!format!("{url} {url:?}").contains("geheim"));
    }
}
