//! Which addresses are refused: all that are not for the whole internet, and those at which clouds tell secrets. Pure.
//!
//! The tables are IANA's: the IPv4 and the IPv6 Special-Purpose Address Registry (RFC 6890, RFC 8190), multicast
//! (RFC 5771, RFC 4291) and the global unicast space of IPv6, 2000::/3 (RFC 4291, 2.4): what is outside of it is refused.
//! An IPv6 address that carries one of IPv4 is judged by that one, because the packet ends there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 that is refused.
const REFUSED_V4: [Ipv4Net; 18] = [
    v4([0, 0, 0, 0], 8),          // this network, RFC 791
    v4([10, 0, 0, 0], 8),         // private, RFC 1918
    v4([100, 64, 0, 0], 10),      // shared by carriers, RFC 6598
    v4([127, 0, 0, 0], 8),        // loopback, RFC 1122
    v4([168, 63, 129, 16], 32),   // Azure tells a machine's secrets here; global by its number alone
    v4([169, 254, 0, 0], 16),     // link-local, RFC 3927; the clouds' metadata
    v4([172, 16, 0, 0], 12),      // private, RFC 1918
    v4([192, 0, 0, 0], 24),       // protocol assignments, RFC 6890
    v4([192, 0, 2, 0], 24),       // documentation, RFC 5737
    v4([192, 88, 99, 0], 24),     // 6to4 relays, RFC 7526
    v4([192, 168, 0, 0], 16),     // private, RFC 1918
    v4([198, 18, 0, 0], 15),      // benchmarks, RFC 2544
    v4([198, 51, 100, 0], 24),    // documentation, RFC 5737
    v4([203, 0, 113, 0], 24),     // documentation, RFC 5737
    v4([224, 0, 0, 0], 4),        // multicast, RFC 5771
    v4([233, 252, 0, 0], 24),     // documentation, RFC 5771
    v4([240, 0, 0, 0], 4),        // reserved, RFC 1112
    v4([255, 255, 255, 255], 32), // broadcast, RFC 8190
];

/// All of IPv6 that is global unicast; the rest is refused: ::, ::1, ::/96 (RFC 4291), 64:ff9b:1::/48 (RFC 8215),
/// 100::/64 (RFC 6666), 5f00::/16 (RFC 9602), fc00::/7 (RFC 4193), fe80::/10 (RFC 4291), fec0::/10 (RFC 3879),
/// ff00::/8 (RFC 4291).
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What of it is refused all the same.
const REFUSED_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocol assignments, RFC 2928: Teredo, ORCHID, benchmarks
    v6([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32), // documentation, RFC 3849
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation, RFC 9637
];

/// Addresses of IPv6 in which one of IPv4 stands, behind the bits of the net.
const CARRYING_V4: [Ipv6Net; 3] = [
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),    // mapped, RFC 4291, 2.5.5.2
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), // NAT64, RFC 6052
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),    // 6to4, RFC 3056
];

/// Whether an address is refused unless the configuration names it.
pub fn is_refused(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => REFUSED_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => is_refused(IpAddr::V4(inner)),
            None => !GLOBAL_V6.contains(&address) || REFUSED_V6.iter().any(|net| net.contains(&address)),
        },
    }
}

fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let net = CARRYING_V4.iter().find(|net| net.contains(&address))?;
    let bits = address.to_bits() << net.prefix_len() >> 96;
    u32::try_from(bits).ok().map(Ipv4Addr::from_bits)
}

const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_the_whole_internet_is_refused_to_its_ends() {
        for refused in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:7f00:1::",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::1",
            "2001:10::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            "3fff::1",
            "3fff:fff::",
            "4000::",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::",
            "fe80::1",
            "febf::",
            "fec0::1",
            "feff::",
            "ff02::1",
            "1::",
        ] {
            assert!(is_refused(refused.parse().expect(refused)), "{refused}");
        }
        for global in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
            "3ffe::1",
            "3fff:1000::",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(!is_refused(global.parse().expect(global)), "{global}");
        }
    }
}
