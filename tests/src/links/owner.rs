//! Which process has a socket, as the kernel shows it below `/proc`.

use std::{fs, net::SocketAddr};

/// The inode of the socket whose own address is `local` and whose peer is `remote`, both on loopback.
pub fn inode(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/self/net/tcp").ok()?;
    let (local, remote) = (written(local)?, written(remote)?);
    // A busy machine has tens of thousands of them: few are looked at closely.
    table.lines().skip(1).filter(|line| line.contains(&local)).find_map(|line| {
        // sl | local | remote | state | queues | timer | retransmits | uid | timeout | inode
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str()))
            .then(|| fields.get(9)?.parse().ok())?
    })
}

/// An address as the table has it: the bytes as a little-endian number, the port as a big-endian one.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port()))
}

/// Whether a process has it open.
pub fn has(process: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.to_str() == Some(&wanted))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_tells_whose_a_connection_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let inode = inode(client.local_addr().unwrap(), accepted.local_addr().unwrap()).unwrap();
        assert!(has(std::process::id(), inode));
        assert!(!has(1, inode) && !has(std::process::id(), u64::MAX));
    }
}
