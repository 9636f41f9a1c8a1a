//! Addresses that lead to this machine, to networks behind it or to what clouds tell machines, in all ways of writing
//! them that parsers have been fooled with.

use std::net::{Ipv4Addr, Ipv6Addr};

/// One way of writing one address.
#[derive(Clone, Debug)]
pub struct Spelling {
    pub url: String,
    /// Whether a listener at this port of all addresses of this machine is reached by it, where it is let in.
    pub leads: bool,
}

/// Addresses of this machine.
const OURS: [[u8; 4]; 4] = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 255, 255, 254], [0, 0, 0, 0]];

/// Others that are not for everybody.
const OTHERS: [[u8; 4]; 18] = [
    [10, 0, 0, 1],
    [10, 255, 255, 255],
    [100, 64, 0, 1],
    [100, 100, 100, 200],
    [168, 63, 129, 16],
    [169, 254, 169, 254],
    [169, 254, 170, 2],
    [172, 16, 0, 1],
    [172, 31, 255, 254],
    [192, 0, 0, 192],
    [192, 0, 2, 1],
    [192, 168, 0, 1],
    [198, 18, 0, 1],
    [198, 51, 100, 1],
    [203, 0, 113, 1],
    [224, 0, 0, 1],
    [240, 0, 0, 1],
    [255, 255, 255, 255],
];

/// The same of IPv6.
const OTHERS_V6: [&str; 14] = [
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "100::1",
    "64:ff9b:1::7f00:1",
    "3fff::1",
    "5f00::1",
];

/// All of them, for a listener at this port.
pub fn all(port: u16) -> Vec<Spelling> {
    let mut hosts: Vec<(String, bool)> = Vec::new();
    for octets in OURS {
        hosts.extend(decimal(octets).into_iter().map(|host| (host, true)));
        hosts.extend(unusual(octets).into_iter().map(|host| (host, true)));
        // Of this machine, only the first of its addresses has a name in IPv6 that Linux takes for it.
        let [mapped @ .., nat64, six_to_four, compatible, translated] = embedded(octets);
        hosts.extend(mapped.into_iter().map(|host| (host, true)));
        hosts.extend([nat64, six_to_four, compatible, translated].map(|host| (host, false)));
    }
    for octets in OTHERS {
        hosts.extend(decimal(octets).into_iter().take(8).map(|host| (host, false)));
        hosts.extend(embedded(octets).map(|host| (host, false)));
    }
    hosts.extend(OTHERS_V6.map(|host| (format!("[{host}]"), false)));
    for host in ["[::1]", "[0:0:0:0:0:0:0:1]", "[::0:1]", "[0000::0001]", "[::0.0.0.1]", "[::]", "[0::0]"] {
        hosts.push((host.into(), true));
    }
    for host in ["[::1%lo]", "[::1%25lo]", "[fe80::1%25lo]", "[::ffff:127.0.0.1%251]"] {
        hosts.push((host.into(), false));
    }
    for host in [
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "%6cocalhost",
        "ｌｏｃａｌｈｏｓｔ",
        "ⓛocalhost",
    ] {
        hosts.push((host.into(), true));
    }
    let plain = hosts.into_iter().map(|(host, leads)| (format!("http://{host}:{port}/x"), leads));
    let around =
        ["127.0.0.1", "[::1]", "localhost", "0x7f.1"].into_iter().flat_map(|host| dressed(host, port));
    plain.chain(around).map(|(url, leads)| Spelling { url, leads }).collect()
}

/// With dots or without, in the bases that `inet_aton` reads.
fn decimal(octets: [u8; 4]) -> Vec<String> {
    let [a, b, c, d] = octets;
    let whole = u32::from_be_bytes(octets);
    let (last_three, last_two) = (whole & 0xff_ffff, whole & 0xffff);
    vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{whole}"),
        format!("{whole:#x}"),
        format!("0{whole:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{last_three}"),
        format!("{a}.{b}.{last_two}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("0X{whole:X}"),
        format!("0x00000000{whole:x}"),
        format!("0000{a:o}.00{b:o}.000{c:o}.0000{d:o}"),
        format!("{a:#04x}.{last_three:#x}"),
        format!("{a:#x}.{b}.0{last_two:o}"),
        format!("0{a:o}.{b:#x}.{c}.{d}"),
        format!("{whole}."),
    ]
}

/// In signs that are digits and dots only after they are normalised.
fn unusual(octets: [u8; 4]) -> Vec<String> {
    let [a, b, c, d] = octets;
    let plain = format!("{a}.{b}.{c}.{d}");
    let digits = |zero: u32| -> String {
        let sign = |digit: char| char::from_u32(zero + digit.to_digit(10).unwrap()).unwrap();
        plain.chars().map(|sign_or_dot| if sign_or_dot == '.' { '.' } else { sign(sign_or_dot) }).collect()
    };
    let circled = plain.chars().map(|sign| match sign.to_digit(10) {
        Some(0) => '⓪',
        Some(digit) => char::from_u32(0x245f + digit).unwrap(),
        None => '.',
    });
    let escaped: String = plain.bytes().map(|byte| format!("%{byte:02x}")).collect();
    vec![
        digits(0xff10),
        digits(0x1d7ce),
        digits(0x1d7d8),
        digits(0x1d7f6),
        circled.collect(),
        plain.replace('.', "。"),
        plain.replace('.', "．"),
        plain.replace('.', "｡"),
        plain.replace('.', "%2e"),
        plain.replace('.', "%E3%80%82"),
        escaped,
        format!("{plain}\u{ad}"),
        plain.replacen('.', ".\u{200b}", 1),
        plain.replacen('.', "\t.", 1),
        plain.replacen('.', ".\n", 1),
    ]
}

/// Inside an address of IPv6.
fn embedded(octets: [u8; 4]) -> [String; 8] {
    let [a, b, c, d] = octets;
    let inner = Ipv4Addr::from(octets);
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low);
    let whole = mapped.segments().map(|segment| format!("{segment:04X}")).join(":");
    [
        format!("[::ffff:{inner}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[{whole}]"),
        format!("[0:0::FFFF:{inner}]"),
        format!("[64:ff9b::{inner}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[::{inner}]"),
        format!("[::ffff:0:{inner}]"),
    ]
}

/// A plain host in an address that is written oddly around it.
fn dressed(host: &str, port: u16) -> Vec<(String, bool)> {
    let at = format!("{host}:{port}");
    let led = [
        format!("http://user@{at}/"),
        format!("http://user:password@{at}/"),
        format!("http://public.example@{at}/"),
        format!("http://public.example:80@{at}/"),
        format!("http://a@b@{at}/"),
        format!("http://%70ublic.example%2f@{at}/"),
        format!("http://@{at}/"),
        format!("http://:@{at}/"),
        format!("HTTP://{at}/"),
        format!("hTtP://{at}/"),
        format!("http:/{at}/"),
        format!("http:{at}/"),
        format!("http:\\\\{at}/"),
        format!("http:\\/{at}/"),
        format!("http:///{at}/"),
        format!("http://///{at}/"),
        format!("http://{at}\\@public.example/"),
        format!("http://{at}#@public.example/"),
        format!("http://{at}?@public.example/"),
        format!("http://{at}/@public.example/"),
        format!(" http://{at}/ "),
        format!("ht\ttp://{at}/"),
        format!("http://\n{at}/"),
        format!("http:/\t/{at}/"),
        format!("http://{host}:00{port}/"),
        format!("\u{1}http://{at}/"),
    ];
    let other = [
        format!("http://{host}/"),
        format!("http://{host}:/"),
        format!("https://{host}/"),
        format!("http://public.example%40{at}/"),
        format!("http://{host}%23:{port}/"),
        format!("http://{host}%00:{port}/"),
        format!("http://[{at}]/"),
    ];
    led.into_iter().map(|url| (url, true)).chain(other.map(|url| (url, false))).collect()
}
