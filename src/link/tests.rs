use std::fs;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::*;

/// A link between two sockets of a folder.
fn datagram(folder: &Path, local: &str, remote: &str) -> LinkName {
    LinkName::Datagram { local: folder.join(local), remote: folder.join(remote) }
}

fn frame(bytes: usize, fill: u8) -> Vec<u8> {
    vec![fill; bytes]
}

/// What came and is waiting.
fn received(link: &mut Link) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(frame) = link.receive().expect("the link works") {
        frames.push(frame.to_vec());
    }
    frames
}

#[test]
fn names_are_read_and_shown_as_they_are_typed() {
    for text in
        ["none", "loopback", "dgram:/a/b,c", "tap:tap0", "pcap:out.pcap", "replay:-", "replay:in.pcap"]
    {
        assert_eq!(text.parse::<LinkName>().expect(text).to_string(), text);
    }
    for (text, part) in [
        ("", "there are none, loopback"),
        ("eth0", "dgram:LOCAL,REMOTE"),
        ("none:", "there are"),
        ("loopback:x", "there are"),
        ("dgram", "two socket paths"),
        ("dgram:", "two socket paths"),
        ("dgram:a", "one comma"),
        ("dgram:a,", "one comma"),
        ("dgram:,b", "one comma"),
        ("dgram:a,b,c", "one comma"),
        ("dgram:a,a", "both ends"),
        ("tap:", "name of an interface"),
        ("tap:sixteen_letters_", "no name of an interface"),
        ("tap:a/b", "no name of an interface"),
        ("tap:tap%d", "no name of an interface"),
        ("tap:..", "no name of an interface"),
        ("pcap:", "a file"),
        ("pcap:-", "standard output"),
        ("replay", "a file"),
    ] {
        let message = text.parse::<LinkName>().expect_err(text);
        assert!(message.contains(part), "{text}: {message}");
    }
}

#[test]
fn frames_cross_between_two_sockets_whole_and_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut one = Link::open(&datagram(folder.path(), "one", "other")).expect("opens");
    let mut other = Link::open(&datagram(folder.path(), "other", "one")).expect("opens");
    let frames = [frame(14, 1), frame(60, 2), frame(1514, 3), frame(FRAME_BYTES_MAX, 4)];
    for frame in &frames {
        one.send(frame).expect("sends");
    }
    assert_eq!(received(&mut other), frames);
    assert_eq!(received(&mut one), Vec::<Vec<u8>>::new(), "nothing comes back");
    assert_eq!(one.counters(), LinkCounters { sent: 4, ..LinkCounters::default() });
    assert_eq!(other.counters(), LinkCounters { received: 4, ..LinkCounters::default() });
    assert!(one.descriptor().is_some() && one.look_again().is_none());
    drop((one, other));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "no socket is left");
}

#[test]
fn a_peer_that_is_away_costs_frames_and_is_served_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut link = Link::open(&datagram(folder.path(), "here", "there")).expect("opens");
    // Not there yet
    link.send(&frame(60, 1)).expect("no error");
    // There
    let peer = UnixDatagram::bind(folder.path().join("there")).expect("binds");
    link.send(&frame(60, 2)).expect("no error");
    // Gone, its socket left behind
    drop(peer);
    link.send(&frame(60, 3)).expect("no error");
    // Back
    fs::remove_file(folder.path().join("there")).expect("removes");
    let peer = UnixDatagram::bind(folder.path().join("there")).expect("binds");
    link.send(&frame(60, 4)).expect("no error");
    peer.send_to(&frame(60, 5), folder.path().join("here")).expect("sends");
    // Then only what was sent while it was there came
    let mut buffer = [0; 100];
    assert_eq!(peer.recv(&mut buffer).expect("receives"), 60);
    assert_eq!(buffer[0], 4);
    assert_eq!(received(&mut link), [frame(60, 5)]);
    assert_eq!(link.counters(), LinkCounters { sent: 2, received: 1, lost: 2, refused: 0 });
}

#[test]
fn frames_wait_while_the_peer_does_not_read_and_none_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut link = Link::open(&datagram(folder.path(), "here", "there")).expect("opens");
    let peer = UnixDatagram::bind(folder.path().join("there")).expect("binds");
    peer.set_nonblocking(true).expect("a mode");
    for number in 0..200 {
        link.send(&frame(1514, number)).expect("no error");
    }
    assert!(link.look_again().is_some_and(|wait| wait > Duration::ZERO), "the queue of a socket is short");
    let mut buffer = [0; 2000];
    for number in 0..200 {
        let length = peer.recv(&mut buffer).or_else(|_| {
            assert!(link.receive().expect("works").is_none());
            peer.recv(&mut buffer)
        });
        assert_eq!((length.expect("a frame"), buffer[0]), (1514, number));
    }
    assert_eq!(link.counters().sent, 200);
    assert!(link.look_again().is_none());
    // A peer that never reads is not waited for without end.
    for _ in 0..5000 {
        link.send(&frame(60, 0)).expect("no error");
    }
    assert!(link.counters().lost > 3000, "{:?}", link.counters());
}

#[test]
fn frames_too_short_or_too_long_are_dropped_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut link = Link::open(&datagram(folder.path(), "here", "there")).expect("opens");
    let peer = UnixDatagram::unbound().expect("a socket");
    for bytes in [0, 13, 14, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 60_000] {
        peer.send_to(&frame(bytes, 7), folder.path().join("here")).expect("sends");
    }
    let lengths: Vec<usize> = received(&mut link).iter().map(Vec::len).collect();
    assert_eq!(lengths, [14, FRAME_BYTES_MAX]);
    link.send(&frame(FRAME_BYTES_MAX + 1, 7)).expect("no error");
    assert_eq!(link.counters(), LinkCounters { sent: 0, received: 2, lost: 1, refused: 4 });
}

#[test]
fn a_stale_socket_is_replaced_and_anything_else_at_its_path_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let refused =
        |name: &str| Link::open(&datagram(folder.path(), name, "there")).err().expect(name).to_string();
    // Given a socket that its process left behind
    drop(UnixDatagram::bind(path("stale")).expect("binds"));
    assert!(path("stale").exists());
    // When it is opened, then it works
    let mut link = Link::open(&datagram(folder.path(), "stale", "there")).expect("opens");
    UnixDatagram::unbound().expect("a socket").send_to(&frame(60, 1), path("stale")).expect("sends");
    assert_eq!(received(&mut link).len(), 1);
    // And one that is in use, of either type, is refused and stays
    let message = refused("stale");
    assert!(message.contains("stale") && message.contains("another process"), "{message}");
    let _listener = std::os::unix::net::UnixListener::bind(path("stream")).expect("binds");
    assert!(refused("stream").contains("another process"));
    UnixStream::connect(path("stream")).expect("still there");
    // And a file is
    fs::write(path("file"), "precious").expect("writes");
    assert!(refused("file").contains("no socket"));
    assert_eq!(fs::read(path("file")).expect("still there"), b"precious");
    // And what cannot be made says why
    assert!(refused("no/such/folder").contains("cannot be made a datagram socket"));
    assert!(refused(&"x".repeat(200)).contains("107 bytes"));
    // And a socket that somebody else put there meanwhile is not removed
    fs::remove_file(path("stale")).expect("removes");
    let _other = UnixDatagram::bind(path("stale")).expect("binds");
    drop(link);
    assert!(path("stale").exists());
}

#[test]
fn a_loopback_gives_back_what_it_was_sent_and_none_takes_it() {
    let mut link = Link::open(&LinkName::Loopback).expect("opens");
    assert!(link.look_again().is_none());
    link.send(&frame(60, 1)).expect("sends");
    link.send(&frame(61, 2)).expect("sends");
    assert_eq!(link.look_again(), Some(Duration::ZERO));
    assert_eq!(received(&mut link), [frame(60, 1), frame(61, 2)]);
    let mut link = Link::open(&LinkName::None).expect("opens");
    link.send(&frame(60, 1)).expect("sends");
    assert!(link.receive().expect("works").is_none() && link.descriptor().is_none());
    assert_eq!(link.counters(), LinkCounters { lost: 1, ..LinkCounters::default() });
}

#[test]
fn a_capture_that_was_written_is_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("frames.pcap");
    let mut link = Link::open(&LinkName::Capture(path.clone())).expect("opens");
    for frame in [frame(60, 1), frame(13, 2), frame(1514, 3)] {
        link.send(&frame).expect("sends");
    }
    assert!(!path.exists(), "it appears whole");
    link.close().expect("closes");
    let mut link = Link::open(&LinkName::Replay(path)).expect("opens");
    assert!(!link.is_over() && link.look_again() == Some(Duration::ZERO));
    assert_eq!(received(&mut link), [frame(60, 1), frame(1514, 3)]);
    assert!(link.is_over() && link.look_again().is_none());
    assert_eq!(link.counters(), LinkCounters { received: 2, refused: 1, ..LinkCounters::default() });
    // A capture that stays open leaves nothing.
    drop(Link::open(&LinkName::Capture(folder.path().join("never.pcap"))).expect("opens"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    let error = Link::open(&LinkName::Replay(folder.path().join("gone.pcap"))).err().expect("no file");
    assert!(error.to_string().contains("gone.pcap"));
}

/// Where TAP interfaces may be made, one is; everywhere else the message says what is missing.
#[test]
fn a_tap_interface_opens_or_says_what_it_needs() {
    let name = format!("cry{}", std::process::id());
    match Link::open(&LinkName::Tap(name.clone())) {
        Ok(mut link) => {
            // It is down: it takes no frame, and gives none.
            link.send(&frame(60, 1)).expect("no error");
            assert_eq!(link.counters().lost, 1);
            assert!(link.receive().expect("works").is_none() && link.descriptor().is_some());
            let folder = Path::new("/sys/class/net").join(&name);
            let told = fs::read_to_string(folder.join("mtu")).expect("the kernel tells");
            assert_eq!(link.mtu().map(|mtu| mtu.to_string()).as_deref(), Some(told.trim()));
            let second = Link::open(&LinkName::Tap(name)).err().expect("it is taken").to_string();
            assert!(second.contains("another process uses this interface"), "{second}");
            let other = Link::open(&LinkName::Tap("lo".to_owned())).err().expect("no TAP").to_string();
            assert!(other.contains("no TAP"), "{other}");
        }
        Err(error) => {
            println!("skipped: {error}");
            let advised = ["modprobe tun", "ip tuntap add", "cannot be opened", "Linux's"];
            assert!(advised.iter().any(|part| error.to_string().contains(part)), "{error}");
        }
    }
}
