use super::*;

fn reach(allow_private: &[&str]) -> Reach {
    let list: Vec<String> = allow_private.iter().map(ToString::to_string).collect();
    Reach::parse(&list).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn refuses_all_that_is_not_public() {
    for (address, what) in [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.1", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.8", "reserved for protocols"),
        ("192.0.2.1", "for documentation"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "for benchmarks"),
        ("198.19.255.255", "for benchmarks"),
        ("198.51.100.7", "for documentation"),
        ("203.0.113.7", "for documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "broadcast"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "reserved"),
        ("::8.8.8.8", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.1.2.3", "private"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:0:127.0.0.1", "reserved"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::10.0.0.1", "reserved"),
        ("100::1", "reserved"),
        ("2001::1", "reserved for protocols"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved for protocols"),
        ("2001:1ff:ffff::1", "reserved for protocols"),
        ("2001:db8::1", "for documentation"),
        ("2002:7f00:1::1", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("3fff:fff::1", "for documentation"),
        ("5f00::1", "reserved"),
        ("fc00::1", "unique local"),
        ("fd12:3456:789a::1", "unique local"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
    ] {
        let refused = reach(&[]).check(ip(address)).expect_err(address);
        assert_eq!(refused.what, what, "{address}");
    }
}

#[test]
fn lets_the_public_internet_through() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "169.253.255.255",
        "169.255.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700:4700::1111",
        "3ffe::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ] {
        assert_eq!(reach(&[]).check(ip(address)), Ok(()), "{address}");
    }
}

#[test]
fn what_is_named_is_allowed_in_all_its_forms_and_nothing_else() {
    let reach = reach(&["10.0.0.0/8", "127.0.0.1", "fd00::/8", "::1"]);
    for allowed in [
        "10.9.8.7",
        "127.0.0.1",
        "::ffff:10.9.8.7",
        "64:ff9b::10.9.8.7",
        "fd00::1",
        "::1",
    ] {
        assert_eq!(reach.check(ip(allowed)), Ok(()), "{allowed}");
    }
    for refused in [
        "127.0.0.2",
        "169.254.169.254",
        "192.168.0.1",
        "fc00::1",
        "::ffff:127.0.0.2",
    ] {
        assert!(reach.check(ip(refused)).is_err(), "{refused}");
    }
}

#[test]
fn a_name_with_mixed_addresses_leads_only_to_those_within_reach() {
    let socket = |text: &str| SocketAddr::new(ip(text), 0);
    let mixed = [socket("10.0.0.1"), socket("8.8.8.8"), socket("::1")];
    let found: Vec<SocketAddr> = within(&reach(&[]), mixed.into_iter()).unwrap().collect();
    assert_eq!(found, [socket("8.8.8.8")]);
    let refused = within(&reach(&[]), [socket("10.0.0.1"), socket("::1")].into_iter());
    assert_eq!(refused.err().unwrap().address, ip("10.0.0.1"));
}

#[test]
fn says_which_entries_are_no_networks() {
    let list = ["10.0.0.0/8", "10.0.0.0/33", "localhost", ""].map(str::to_owned);
    let problems = Reach::parse(&list).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[1].contains("\"localhost\""));
}
