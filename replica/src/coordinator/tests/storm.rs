//! Many members that come, go, fall silent and commit, over coordinators that change, by seeds. What must hold:
//! every ticket is answered once (the world asserts it); G2, generations only rise within what is stored, and what is
//! committed was committed by somebody of the generation; G3, in a generation an assignment goes to one member; G5, with
//! all members well behaved in the end, the group comes to rest.

use super::*;

/// A small generator: what matters is that it is the same everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Stands {
    #[default]
    Out,
    Joining(Ticket),
    Syncing(Ticket),
    In,
}

/// A member that does what a client does.
#[derive(Debug, Default)]
struct Client {
    id: String,
    generation: i32,
    stands: Stands,
    owns: Vec<u8>,
    sleeps: bool,
}

const PARTITIONS: u8 = 8;

impl Client {
    fn step(&mut self, world: &mut World) {
        match self.stands.clone() {
            Stands::Out => {
                self.owns.clear();
                let id = self.id.clone();
                self.stands = Stands::Joining(world.join(&id));
            }
            Stands::Joining(ticket) if !world.waits(ticket) => match world.answer(ticket) {
                Ok(Answer::Joined(joined)) => {
                    (self.id, self.generation) = (joined.member_id.clone(), joined.generation);
                    let given = assign(&joined);
                    self.stands = Stands::Syncing(world.ask(Request::Sync(Sync {
                        group: "g".into(),
                        member: MemberRef::dynamic(&self.id),
                        generation: self.generation,
                        protocol_type: None,
                        protocol: None,
                        assignments: given,
                    })));
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => self.refused(&error),
            },
            Stands::Syncing(ticket) if !world.waits(ticket) => match world.answer(ticket) {
                Ok(Answer::Synced(synced)) => {
                    self.owns = synced.assignment.to_vec();
                    self.stands = Stands::In;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => self.refused(&error),
            },
            Stands::Joining(_) | Stands::Syncing(_) => {}
            Stands::In => {
                if let Err(error) = world.beat(&self.id.clone(), self.generation) {
                    self.refused(&error);
                }
            }
        }
    }

    fn refused(&mut self, error: &GroupError) {
        if *error == GroupError::NotCoordinator {
            // It finds the next one, and goes on where it was; what waited is asked again.
            if self.stands != Stands::In {
                self.stands = Stands::Out;
            }
            return;
        }
        if *error == GroupError::UnknownMember {
            self.id.clear();
        }
        self.stands = Stands::Out;
    }
}

/// Who leads shares the partitions out.
fn assign(joined: &Joined) -> Vec<(String, Bytes)> {
    let count = joined.members.len().max(1);
    let of = |place: usize| (0..PARTITIONS).filter(|p| usize::from(*p) % count == place).collect::<Vec<u8>>();
    let members = joined.members.iter().enumerate();
    members.map(|(place, member)| (member.member.id.clone(), of(place).into())).collect()
}

fn check(world: &World, clients: &[Client], generation: &mut i32) {
    let Some(stored) = world.groups.get("g").and_then(|group| group.metadata.clone()) else { return };
    assert!(stored.generation >= *generation, "G2: the generation went back");
    *generation = stored.generation;
    let mut owned: Vec<u8> = Vec::new();
    for client in clients.iter().filter(|client| client.stands == Stands::In) {
        if client.generation == stored.generation {
            owned.extend(&client.owns);
        }
    }
    owned.sort_unstable();
    assert!(owned.windows(2).all(|pair| pair[0] != pair[1]), "G3: two own one partition: {owned:?}");
}

fn storm(seed: u64) {
    let mut chance = Chance(seed);
    let mut world = World::new();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
    let (mut generation, mut offset) = (0, 0);
    for _ in 0..400 {
        world.pass(Duration::from_millis(chance.below(3_000)));
        match chance.below(20) {
            0 => world.fail_over(),
            1 => world.applies = !world.applies,
            2 | 3 => {
                let who = chance.below(4) as usize;
                clients[who].sleeps = !clients[who].sleeps;
            }
            4 => {
                let who = chance.below(4) as usize;
                if clients[who].stands == Stands::In {
                    drop(world.leave(&clients[who].id.clone()));
                }
            }
            5 | 6 => {
                let client = &clients[chance.below(4) as usize];
                offset += 1;
                let before = world.groups.get("g").and_then(|group| group.metadata.clone());
                let applies = std::mem::replace(&mut world.applies, true);
                let ticket = world.commit_as(&client.id, client.generation, offset);
                world.applies = applies;
                let is_current = before.is_none_or(|stored| stored.generation <= client.generation);
                let taken = world.answer(ticket) == Ok(Answer::Committed(vec![Ok(())]));
                assert!(!taken || is_current, "G2: a commit of an old generation was taken");
                assert_eq!(taken, world.committed() == Some(offset), "G1: what is answered is there");
            }
            _ => {
                let who = chance.below(4) as usize;
                if !clients[who].sleeps {
                    clients[who].step(&mut world);
                }
            }
        }
        check(&world, &clients, &mut generation);
    }
    world.applies = true;
    world.apply();
    world.settle();
    // G5: the bound is a rebalance timeout and two sessions.
    for _ in 0..100 {
        world.pass(Duration::from_secs(1));
        clients.iter_mut().for_each(|client| client.step(&mut world));
        clients.iter_mut().for_each(|client| client.step(&mut world));
        check(&world, &clients, &mut generation);
    }
    assert!(clients.iter().all(|client| client.stands == Stands::In), "seed {seed}: {clients:?}");
    let mut owned: Vec<u8> = clients.iter().flat_map(|client| client.owns.clone()).collect();
    owned.sort_unstable();
    assert!(owned.into_iter().eq(0..PARTITIONS), "G3: all partitions are owned, seed {seed}: {clients:?}");
}

#[test]
fn g3_g5_storms_of_members_and_coordinators_end_with_everything_shared() {
    (0..200).for_each(storm);
}
