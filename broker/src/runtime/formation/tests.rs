//! Three seats in one process over real files: the protocol itself is proven in `consensus`.

use std::collections::BTreeMap;

use varve_objects::testing::MemoryStore;
use varve_wal::NativeDisk;

use super::*;
use crate::runtime::clock::SystemClock;

const SEEDS: [&str; 3] = ["a:1", "b:1", "c:1"];

/// Seats that hear each other; those that are down are not in it.
#[derive(Default)]
struct Table(Mutex<BTreeMap<String, Arc<Seat>>>);

struct Voice(Arc<Table>);

impl Seeds for Voice {
    fn probe(&self, seed: String, probe: Probe) -> BoxFuture<'static, Option<Answer>> {
        let seat = self.0.0.lock().unwrap().get(&seed).cloned();
        Box::pin(async move { seat.map(|seat| seat.probed(&probe)) })
    }
}

struct Member {
    ground: Ground,
    _directory: tempfile::TempDir,
}

fn member(number: usize, store: &Arc<dyn Store>) -> Member {
    let directory = tempfile::tempdir().unwrap();
    let ground = Ground {
        disk: Arc::new(NativeDisk),
        directory: directory.path().to_owned(),
        store: Arc::clone(store),
        prefix: Prefix::new("p"),
        node: NodeId::new(number as u32 + 1).unwrap(),
        clock: Arc::new(SystemClock::new()),
        start: Start::new(Arc::default()),
    };
    Member { ground, _directory: directory }
}

impl Member {
    fn founder(&self, start: u64) -> Founder {
        let number = u64::from(self.ground.node.get());
        Founder {
            node: self.ground.node,
            seeds: SEEDS.map(str::to_owned).into(),
            count: None,
            process: start * 10 + number,
            disk: start * 100 + number,
            cluster: ClusterId::from_random(u128::from(start * 10 + number)),
            claims: true,
            founds: true,
        }
    }

    fn sit_down(&self, table: &Table, start: u64) -> Arc<Seat> {
        let seat = Arc::new(Seat::open(&self.ground, self.founder(start), None).unwrap());
        let name = SEEDS[self.ground.node.get() as usize - 1].to_owned();
        table.0.lock().unwrap().insert(name, Arc::clone(&seat));
        seat
    }
}

async fn form(members: &[Member], table: &Arc<Table>, start: u64) -> Vec<Formed> {
    let seats: Vec<Arc<Seat>> = members.iter().map(|member| member.sit_down(table, start)).collect();
    let voice: Arc<dyn Seeds> = Arc::new(Voice(Arc::clone(table)));
    let forms = seats.iter().zip(members).map(|(seat, member)| seat.form(&member.ground, &voice));
    futures_util::future::try_join_all(forms).await.unwrap()
}

#[tokio::test]
async fn three_seats_form_one_cluster_and_remember_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let members: Vec<Member> = (0..3).map(|number| member(number, &store)).collect();
    let formed = form(&members, &Arc::default(), 1).await;
    let Formed::Founder { cluster, voters } = &formed[0] else { panic!("{formed:?}") };
    assert_eq!(voters.len(), 3);
    assert!(formed.iter().all(|each| *each == formed[0]));
    let claimed = claim::lives(&*store, &Prefix::new("p")).await.unwrap().unwrap();
    assert_eq!(claimed.newest.cluster, *cluster);
    // Each by itself, with nobody to ask.
    for member in &members {
        assert_eq!(form(std::slice::from_ref(member), &Arc::default(), 2).await[0], formed[0]);
    }
}

#[tokio::test]
async fn a_wiped_disk_joins_what_it_founded_and_a_claimed_prefix_is_refused() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut members: Vec<Member> = (0..3).map(|number| member(number, &store)).collect();
    let formed = form(&members, &Arc::default(), 1).await;
    let Formed::Founder { cluster, voters } = formed[0].clone() else { panic!("{formed:?}") };
    members[2] = member(2, &store);
    let again = form(&members, &Arc::default(), 2).await;
    assert_eq!((&again[0], &again[2]), (&formed[0], &Formed::Newcomer { cluster, voters }));

    let strangers: Vec<Member> = (0..3).map(|number| member(number, &store)).collect();
    let table = Arc::<Table>::default();
    let seats: Vec<_> = strangers.iter().map(|each| each.sit_down(&table, 3)).collect();
    let voice: Arc<dyn Seeds> = Arc::new(Voice(table));
    let refused = seats[0].form(&strangers[0].ground, &voice).await.unwrap_err();
    assert!(refused.to_string().contains("varve restore"), "{refused}");
}

#[tokio::test]
async fn a_damaged_formation_file_is_not_a_new_disk() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let alone = member(0, &store);
    store_garbage(&alone.ground);
    let refused = Seat::open(&alone.ground, alone.founder(1), None).err().unwrap();
    assert!(matches!(refused, FormationError::Damaged));
}

fn store_garbage(ground: &Ground) {
    small_file::replace(&*ground.disk, &ground.directory, FILE, b"garbage").unwrap();
}
