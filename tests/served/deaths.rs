//! Ends without a farewell, in the midst of traffic.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cryptonic_driver::backend::vfio_user::VfioUser;
use cryptonic_driver::{
    Cipher, Direction, Error, Mode, Nic, Protection, QueueError, QueuePair, SaConfiguration, SaHandle,
    SecretKey, Time,
};

use crate::rig::{PATIENCE, Server, patient, queue_pair, send, udp_frame};

/// What a driver in another process attaches to.
const SOCKET: &str = "CRYPTONIC_TEST_SOCKET";

fn esp(nic: &mut Nic) -> SaHandle {
    let key = SecretKey::new(&[0x42; 16]).expect("16 bytes");
    let sa =
        SaConfiguration::new(Direction::Out, Mode::Transport, Cipher::AesGcm128, key, [1, 2, 3, 4], 0x1001);
    nic.install_sa(sa).expect("installed")
}

/// Sends and receives; the frames come back by MAC loopback.
fn traffic(queue: &mut QueuePair, sa: SaHandle, bursts: usize) -> Result<(), QueueError> {
    let frame = udp_frame(500);
    let mut received = vec![];
    for burst in 0..bursts {
        let protection = if burst % 2 == 0 { Protection::Clear } else { Protection::Sa(sa) };
        send(queue, &frame, protection)?;
        queue.receive(&mut received, 16)?;
        queue.return_buffers(&mut received)?;
    }
    Ok(())
}

/// Runs `work` in a thread, which has to end.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    let thread = std::thread::spawn(move || drop(done.send(work())));
    let outcome = end.recv_timeout(PATIENCE * 4);
    match outcome {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().expect_err("it panicked"))
        }
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

#[test]
fn a_server_that_is_killed_is_an_error_of_its_driver() {
    ends(|| {
        let mut server = Server::start(&[]);
        let (mut nic, mut queue) = server.open();
        let sa = esp(&mut nic);
        traffic(&mut queue, sa, 200).expect("it serves");
        server.child.kill().expect("killed");
        server.child.wait().expect("dead");
        // What needs no answer may go on for a while: a ring is only memory.
        let _ = traffic(&mut queue, sa, 1000);
        let deadline = queue.time() + Time::from_milliseconds(30_000);
        assert_eq!(queue.wait(deadline), Err(QueueError::Gone));
        assert!(queue.check_device().is_err());
        assert!(matches!(nic.query_sa(sa), Err(Error::Gone)));
        assert!(nic.device_status().is_err() && nic.statistics().is_err());
        assert!(queue.close().is_err());
        assert!(nic.close().is_err());
    });
}

#[test]
fn a_driver_that_sleeps_is_woken_by_the_end_of_its_server() {
    ends(|| {
        let mut server = Server::start(&[]);
        let (_nic, mut queue) = server.open();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            server.child.kill().expect("killed");
            server
        });
        assert_eq!(queue.wait(Time::NEVER), Err(QueueError::Gone));
        drop(killer.join().expect("the killer ends"));
    });
}

/// Not a test of its own: the driver that the next one kills.
#[test]
fn driver_in_another_process() {
    let Some(socket) = std::env::var_os(SOCKET).map(PathBuf::from) else { return };
    let host = VfioUser::attach(&socket, PATIENCE).expect("it serves");
    let mut nic = Nic::open(Box::new(host), patient()).expect("open");
    nic.set_mac_loopback(true).expect("MAC loopback");
    let mut queue = queue_pair(&mut nic);
    let sa = esp(&mut nic);
    loop {
        traffic(&mut queue, sa, 100).expect("it serves");
        std::fs::write(socket.with_file_name("running"), "").expect("written");
    }
}

#[test]
fn a_driver_that_is_killed_leaves_the_server_for_the_next() {
    let server = Server::start(&[]);
    let descriptors = server.descriptors();
    for _ in 0..3 {
        let running = server.directory.path().join("running");
        let mut driver = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "deaths::driver_in_another_process"])
            .env(SOCKET, server.socket())
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        let started = Instant::now();
        while !running.exists() {
            assert!(started.elapsed() < PATIENCE && driver.try_wait().expect("asked").is_none(), "it runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(server.mappings_of("cryptonic-dma") > 0);
        driver.kill().expect("killed");
        driver.wait().expect("dead");
        std::fs::remove_file(&running).expect("removed");
        // The next one finds a NIC without keys, and nothing of the last is left.
        let (mut nic, mut queue) = server.open();
        assert!(nic.device_status().expect("asked").keys_zeroised());
        assert_eq!(nic.statistics().expect("counted").transmitted_frames(), 0);
        let sa = esp(&mut nic);
        traffic(&mut queue, sa, 100).expect("it serves");
        queue.close().expect("closes");
        nic.close().expect("closes");
        let started = Instant::now();
        while server.mappings_of("cryptonic-dma") > 0 || server.descriptors() != descriptors {
            assert!(started.elapsed() < PATIENCE, "nothing is left of a client");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn many_clients_one_after_another() {
    let server = Server::start(&[]);
    let descriptors = server.descriptors();
    for _ in 0..20 {
        let (mut nic, mut queue) = server.open();
        let sa = esp(&mut nic);
        traffic(&mut queue, sa, 20).expect("it serves");
    }
    let started = Instant::now();
    while server.descriptors() != descriptors {
        assert!(started.elapsed() < PATIENCE, "nothing is left of a client");
        std::thread::sleep(Duration::from_millis(2));
    }
}
