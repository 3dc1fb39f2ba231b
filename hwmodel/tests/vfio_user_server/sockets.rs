//! Who is served when: one client after another, at a path that is the server's own.

use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use cryptonic_hwmodel::vfio_user_server::{Notice, VfioUserServer};
use cryptonic_hwmodel::{NicId, Parameters, World};

use crate::raw::*;

#[test]
fn a_second_client_waits_and_is_served_when_the_first_is_gone() {
    let served = Served::start();
    let mut first = served.attach();
    let mut second = served.connect();
    let version = [&[0, 0, 1, 0][..], b"{}\0"].concat();
    second.command(VERSION, 0, &version, &[]);
    first.write(CONFIG, COMMAND, &[6]).expect("bus master");
    second.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket takes it");
    let mut byte = [0];
    let early = std::io::Read::read(&mut second.stream, &mut byte).expect_err("nothing yet");
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    drop(first);
    second.stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes it");
    let (_, command, flags, ..) = second.answer().expect("served");
    assert_eq!((command, flags), (VERSION, 1));
    assert_eq!(second.read(CONFIG, COMMAND, 2), Ok(vec![0, 0]), "the NIC was reset between them");
}

/// What a client leaves behind: a NIC that is a bus master, keys loaded, memory mapped, an access half sent.
#[test]
fn nothing_is_left_of_a_client_that_was_killed() {
    let served = Served::start();
    let before = descriptors();
    for half in [0, 5, 20] {
        let file = sealed("left-behind", 64 * 4096);
        let mut client = served.attach();
        client.map(Some(&file), 0, 0x10_0000, 64 * 4096, 3).expect("mapped");
        client.write(CONFIG, COMMAND, &[6]).expect("bus master");
        client.write(BAR0, 0x200, &[3, 0, 0, 0]).expect("enabled, MAC loopback");
        assert_eq!(mappings_of("/memfd:left-behind"), 1);
        let message = [header(7, REGION_READ, 32, 0), longs(&[0]), words(&[CONFIG, 4])].concat();
        client.send(&message[..half], &[]).expect("sent");
        drop(client);
        served.told(|notice| matches!(notice, Notice::Gone(_)));
        assert_ne!(served.is_sane() & KEYS_ZEROISED, 0);
        assert_eq!(mappings_of("/memfd:left-behind"), 0);
    }
    descriptors_become(before);
}

#[test]
fn many_clients_leave_no_descriptors() {
    let served = Served::start();
    let before = descriptors();
    for _ in 0..100 {
        served.is_sane();
    }
    descriptors_become(before);
}

fn world() -> (World, NicId) {
    let world = World::new(1);
    let nic = world.add_nic(&Parameters::default()).expect("the defaults are in range");
    (world, nic)
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let _alone = alone();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nic");
    let (world, nic) = world();
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "it is stale");
    let server = VfioUserServer::bind(&path, &world, nic).expect("replaced");
    let second = VfioUserServer::bind(&path, &world, nic).err().expect("in use");
    assert_eq!(second.kind(), ErrorKind::AddrInUse);
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "a file of somebody").expect("written");
    let refused = VfioUserServer::bind(&path, &world, nic).err().expect("no socket");
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).expect("still there"), b"a file of somebody");
    std::fs::remove_file(&path).expect("removed");

    // A socket that somebody else put there since is not the server's to remove.
    let server = VfioUserServer::bind(&path, &world, nic).expect("bound");
    std::fs::rename(&path, directory.path().join("moved")).expect("moved");
    let other = UnixListener::bind(&path).expect("bound");
    drop(server);
    assert!(path.exists());
    drop(other);
}

/// Another server that looks whether the path is in use is no client.
#[test]
fn a_look_at_the_socket_is_no_client() {
    let served = Served::start();
    let (world, nic) = world();
    assert!(VfioUserServer::bind(&served.path, &world, nic).is_err());
    let notice = served.told(|_| true);
    assert_eq!(notice, Notice::Refused("a client that did not attach: it closed its end".to_owned()));
    served.is_sane();
}
