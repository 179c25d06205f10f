//! The NBD server, through a client of our own and through QEMU's.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use holdfast_fault::{Cut, Fault, FaultDisk, nbd::NbdServer};
use holdfast_model::ByteCount;

const SIZE: u64 = 16 << 20;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const OPTION_LIST: u32 = 3;
const OPTION_GO: u32 = 7;

struct Fixture {
    server: NbdServer,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("disk");
        let server = NbdServer::start(&socket, FaultDisk::new(ByteCount::new(SIZE)), 1).unwrap();
        Self { server, socket, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket)
    }
}

/// A client that asks one thing at a time.
struct Client(UnixStream);

impl Client {
    fn connect(socket: &PathBuf) -> Self {
        let mut client = Self(UnixStream::connect(socket).unwrap());
        client.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(&client.receive(16), b"NBDMAGICIHAVEOPT");
        assert_eq!(client.receive(2), [0, 3], "fixed newstyle, no zeroes");
        client.0.write_all(&3u32.to_be_bytes()).unwrap();
        // Something the server does not know, then what it knows.
        assert_eq!(client.option(OPTION_LIST, &[]), [(0x8000_0001, vec![])]);
        assert_eq!(client.option(OPTION_GO, b"not a request"), [(0x8000_0003, vec![])]);
        let answers = client.option(OPTION_GO, &[0, 0, 0, 1, b'x', 0, 1, 0, 3]);
        let export = [&[0, 0][..], &SIZE.to_be_bytes(), &[0, 1 | 4 | 8]].concat();
        let blocks = [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0].to_vec();
        assert_eq!(answers, [(3, export), (3, blocks), (1, vec![])]);
        client
    }

    fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().unwrap())
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let length = (data.len() as u32).to_be_bytes();
        self.0.write_all(&[&b"IHAVEOPT"[..], &option.to_be_bytes(), &length, data].concat()).unwrap();
        let mut answers = Vec::new();
        loop {
            assert_eq!(self.receive(8), 0x3_e889_0455_65a9_u64.to_be_bytes());
            assert_eq!(self.number(), option);
            let (kind, length) = (self.number(), self.number());
            answers.push((kind, self.receive(length as usize)));
            if kind != 3 {
                return answers;
            }
        }
    }

    fn send(&mut self, flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend((offset ^ 0xC00C_1E00).to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.0.write_all(&request).unwrap();
    }

    fn ask(&mut self, flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) -> u32 {
        self.send(flags, command, offset, length, data);
        assert_eq!(self.number(), 0x6744_6698);
        let error = self.number();
        assert_eq!(self.receive(8), (offset ^ 0xC00C_1E00).to_be_bytes(), "the cookie comes back");
        error
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.ask(0, WRITE, offset, data.len() as u32, data)
    }

    fn flush(&mut self) -> u32 {
        self.ask(0, FLUSH, 0, 0, &[])
    }

    fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        match self.ask(0, READ, offset, length, &[]) {
            0 => Ok(self.receive(length as usize)),
            error => Err(error),
        }
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

#[test]
fn what_is_written_is_read_back_in_pieces_of_any_alignment() {
    let fixture = Fixture::new();
    let mut client = fixture.client();
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    for offset in [0, 512, 4096, 70_000, SIZE - 300_000] {
        assert_eq!(client.write(offset, &bytes), 0);
        assert_eq!(client.read(offset, 300_000), Ok(bytes.clone()));
        assert_eq!(client.read(offset + 5000, 700).unwrap(), &bytes[5000..5700]);
    }
    assert_eq!(client.read(SIZE - 512, 1024), Err(EINVAL));
    assert_eq!(client.write(SIZE - 512, &[1; 1024]), ENOSPC);
    assert_eq!(client.ask(0, TRIM, 0, 4096, &[]), EINVAL);
    assert_eq!(client.flush(), 0);
    client.send(0, DISCONNECT, 0, 0, &[]);
    assert!(client.is_closed());
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_a_seeded_choice_of_the_rest() {
    let survivors = |seed| {
        let fixture = Fixture::new();
        let mut client = fixture.client();
        assert_eq!(client.write(0, &[0xF1; 64 << 10]), 0);
        assert_eq!(client.flush(), 0);
        assert_eq!(client.ask(FUA, WRITE, 1 << 20, 4096, &[0xFA; 4096]), 0);
        assert_eq!(client.write(2 << 20, &[0xEE; 64 * 4096]), 0);
        assert_eq!(client.read(2 << 20, 64 * 4096), Ok(vec![0xEE; 64 * 4096]), "the cache answers");
        assert_eq!(fixture.server.cut_power(Cut::Random(seed)), 64);
        assert!(client.is_closed(), "a connection does not outlive the power");
        let mut client = fixture.client();
        assert_eq!(client.read(0, 64 << 10), Ok(vec![0xF1; 64 << 10]), "flushed");
        assert_eq!(client.read(1 << 20, 4096), Ok(vec![0xFA; 4096]), "forced");
        let rest = client.read(2 << 20, 64 * 4096).unwrap();
        let kept: Vec<bool> = rest.chunks(4096).map(|sector| sector.iter().all(|b| *b == 0xEE)).collect();
        assert!(rest.chunks(4096).zip(&kept).all(|(s, kept)| *kept || s.iter().all(|b| *b == 0)));
        kept
    };
    let (first, again, other) = (survivors(7), survivors(7), survivors(8));
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
    assert_eq!(first, again, "the same seed keeps the same");
    assert_ne!(first, other);
}

#[test]
fn errors_rot_slowness_and_hanging_reach_the_client() {
    let fixture = Fixture::new();
    let disk = fixture.server.disk();
    let mut client = fixture.client();
    assert_eq!(client.write(0, &[5; 8192]), 0);
    disk.arrange(Fault::WriteFails(0, libc::ENOSPC));
    disk.arrange(Fault::ReadFails(0, libc::EIO));
    disk.arrange(Fault::FlushFails(0));
    assert_eq!(client.write(0, &[5; 4096]), ENOSPC);
    assert_eq!(client.read(0, 4096), Err(EIO));
    assert_eq!((client.flush(), client.flush()), (EIO, 0), "the next flush knows nothing of it");
    disk.heal();
    assert_eq!(client.write(0, &[5; 8192]), 0);
    disk.rot(4096 + 17, 0x40);
    assert_eq!(client.read(4096, 4096).unwrap()[17], 5 ^ 0x40);
    disk.arrange(Fault::WriteMisdirected(0, 3));
    assert_eq!(client.write(0, &[6; 4096]), 0);
    assert_eq!(client.read(3 * 4096, 1), Ok(vec![6]));
    assert_eq!(client.read(0, 1), Ok(vec![5]));

    disk.arrange(Fault::Slow(Duration::from_millis(50)));
    let since = std::time::Instant::now();
    assert_eq!(client.flush(), 0);
    assert!(since.elapsed() >= Duration::from_millis(50));
    disk.heal();
    disk.arrange(Fault::Hangs(0));
    client.0.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.send(0, FLUSH, 0, 0, &[]);
    assert!(client.0.read(&mut [0]).is_err(), "no answer");
    disk.heal();
    client.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(client.number(), 0x6744_6698, "an answer after all");
    client.receive(12);
    disk.arrange(Fault::Vanishes(0));
    client.send(0, READ, 0, 4096, &[]);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_speaks_something_else_is_let_go() {
    let fixture = Fixture::new();
    let mut stream = UnixStream::connect(&fixture.socket).unwrap();
    stream.write_all(&[0x47; 64]).unwrap();
    let mut all = Vec::new();
    // The greeting, then the end.
    drop(stream.read_to_end(&mut all));
    assert!(all.len() <= 18);
    let mut client = fixture.client();
    client.send(0, READ, 0, u32::MAX, &[]);
    assert!(client.is_closed(), "a request of 4 GiB is none");
    drop(fixture.server);
    assert!(!fixture.socket.exists());
}

/// With the client that matters: the one of the machines.
#[test]
fn qemu_reads_writes_and_flushes_it() {
    let fixture = Fixture::new();
    let image = format!("nbd+unix:///?socket={}", fixture.socket.display());
    let qemu_io = |commands: &[&str]| {
        let mut program = Command::new("qemu-io");
        program.args(["-f", "raw", "-t", "writeback", &image]);
        for command in commands {
            program.args(["-c", command]);
        }
        program.output()
    };
    let Ok(output) = qemu_io(&["write -P 0x5a 0 1M", "flush", "write -P 0xa5 1M 1M", "read -P 0x5a 0 1M"])
    else {
        return println!("qemu-io is not installed: `cargo xtask setup` brings it");
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("wrote 1048576/1048576"), "{text}");
    // QEMU flushes when it closes: everything is durable, and nothing more is lost.
    fixture.server.cut_power(Cut::None);
    let output = qemu_io(&["read -P 0x5a 0 1M", "read -P 0xa5 1M 1M"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("verification failed"), "{text}");
    assert!(fixture.server.connections() >= 2);
}
