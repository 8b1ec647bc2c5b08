use clap::{Arg, CommandFactory as _, Parser as _};

use super::*;

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> i32 {
    Cli::try_parse_from(line.split_whitespace())
        .err()
        .unwrap_or_else(|| panic!("{line} is taken"))
        .exit_code()
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_is_serve_with_its_flags() {
    let cli = parse("varve --data-dir /d --listen :9192 --insecure --set log.segment.bytes=1MiB -c /f.toml");
    assert!(cli.command.is_none());
    let Some(Command::Serve(served)) =
        parse("varve serve --data-dir /d --listen :9192 --insecure --set log.segment.bytes=1MiB -c /f.toml")
            .command
    else {
        panic!("serve")
    };
    assert_eq!(cli.server, served);
    let values: Vec<_> = served.values.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
    assert_eq!(
        values,
        [("data.dir", "/d"), ("listen", ":9192"), ("insecure", "true"), ("log.segment.bytes", "1MiB")]
    );
    assert_eq!(served.file.unwrap().to_str(), Some("/f.toml"));
}

#[test]
fn every_flag_of_the_design_is_there() {
    let flags = "--config=f --data-dir=d --node-id=1 --listen=:1 --peer-listen=:2 --admin-listen=:3 \
        --advertise=h:1 --seeds=h:2 --object-store=s3://b --s3-endpoint=http://e --s3-path-style --insecure=false";
    let cli = parse(&format!("varve dev {flags}"));
    let Some(Command::Dev(flags)) = cli.command else { panic!("dev") };
    assert_eq!(flags.server.values.len(), 11);
}

#[test]
fn kafkas_spellings_of_topic_create_are_taken() {
    for line in [
        "varve topic create t -p 3 -r 1 -c cleanup.policy=compact -c retention.ms=-1 -b h:1",
        "varve topic create t --partitions 3 --replication-factor 1 --config cleanup.policy=compact \
         --config retention.ms=-1 --bootstrap-server h:1",
        "varve topic create t --partitions 3 --replicas 1 --topic-config cleanup.policy=compact \
         --topic-config retention.ms=-1 --brokers h:1",
    ] {
        let Some(Command::Topic(TopicCommand::Create(create))) = parse(line).command else {
            panic!("{line}")
        };
        assert_eq!((create.partitions, create.replication_factor), (Some(3), Some(1)));
        assert_eq!(create.configs[0], ("cleanup.policy".into(), "compact".into()));
        assert_eq!(create.configs[1], ("retention.ms".into(), "-1".into()));
        assert_eq!(create.brokers.brokers, ["h:1"]);
    }
}

#[test]
fn kafkas_spellings_of_consume_are_taken() {
    let Some(Command::Consume(console)) = parse("varve consume t --from-beginning --max-messages 10").command
    else {
        panic!("consume")
    };
    assert_eq!((console.reading.from_beginning, console.reading.count), (true, Some(10)));
    for (offset, line) in [
        ("-3", "varve consume t -o -3 -n 10 -f json -p 0,2 --exit"),
        ("+2", "varve consume t -o +2 -p 0 -p 2"),
        ("@1700000000:end", "varve consume t --offset @1700000000:end --partition 0,2"),
    ] {
        let Some(Command::Consume(consume)) = parse(line).command else { panic!("{line}") };
        assert_eq!(
            (&consume.reading.offsets[..], consume.reading.partitions.named()),
            (&[offset.to_owned()][..], &[0, 2][..]),
            "{line}"
        );
    }
}

#[test]
fn produce_takes_values_lines_and_kafkas_acks() {
    for (acks, line) in [
        (AcksName::All, "varve produce t -k key -H a=1 -H b=2 -z zstd one two"),
        (AcksName::All, "varve produce t --acks -1 -k key -H a=1 -H b=2 --compression zstd one two"),
        (AcksName::One, "varve produce t --request-required-acks 1 -k key -H a=1 -H b=2 -z zstd one two"),
        (AcksName::None, "varve produce t --acks=0 -k key -H a=1 -H b=2 --compression-codec zstd one two"),
    ] {
        let Some(Command::Produce(produce)) = parse(line).command else { panic!("{line}") };
        assert_eq!((produce.acks, produce.codec), (acks, CodecName::Zstd), "{line}");
        assert_eq!(produce.values, ["one", "two"]);
        assert_eq!(produce.headers.len(), 2);
    }
    let Some(Command::Produce(pipe)) = parse("varve produce t -").command else { panic!("pipe") };
    assert_eq!((pipe.values, pipe.format.as_str()), (vec!["-".to_owned()], "%v\\n"));
}

#[test]
fn json_is_asked_for_in_two_ways() {
    for line in ["varve version -o json", "varve version --json", "varve version --output=json"] {
        let Some(Command::Version(output)) = parse(line).command else { panic!("{line}") };
        assert_eq!(output.format(), crate::output::Format::Json);
    }
}

/// Of every command that prints something for people; what prints text for a program or for a shell has no other form.
#[test]
fn every_command_prints_json_where_it_is_asked_to() {
    let without = ["serve", "dev", "dev-node", "completion", "man", "docs"];
    let mut left = vec![(String::from("varve"), Cli::command())];
    let mut commands = 0;
    while let Some((path, command)) = left.pop() {
        if command.has_subcommands() {
            let below = command.get_subcommands().filter(|below| !without.contains(&below.get_name()));
            left.extend(below.map(|below| (format!("{path} {}", below.get_name()), below.clone())));
            continue;
        }
        commands += 1;
        let has = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
        let short = command.get_arguments().find(|argument| argument.get_short() == Some('o'));
        assert!(has("json"), "{path} has no --json");
        // An export writes somewhere, and that is what -o says there.
        let is_elsewhere = |short: &Arg| short.is_allow_hyphen_values_set() || path.ends_with(" export");
        assert!(short.is_some_and(|short| is_elsewhere(short) || has("output")), "{path} -o json");
    }
    assert!(commands > 15, "{commands}");
}

#[test]
fn what_cannot_be_meant_ends_with_2() {
    for line in [
        "varve bogus",
        "varve topic create",
        "varve topic create t -p 0",
        "varve topic create t -c novalue",
        "varve consume t -n many",
        "varve produce t -z brotli",
        "varve version -o xml",
        "varve completion csh",
        "varve --set novalue",
    ] {
        assert_eq!(refused(line), 2, "{line}");
    }
}

#[test]
fn help_tells_defaults_units_and_variables() {
    let help = |path: &[&str]| {
        let mut command = Cli::command();
        for name in path {
            command = command.find_subcommand(name).unwrap().clone();
        }
        command.render_long_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let serve = help(&["serve"]);
    for text in
        ["[default: ./varve-data]", "[default: 127.0.0.1:9092]", "[env: VARVE_DATA_DIR]", "VARVE_CONFIG"]
    {
        assert!(serve.contains(text), "{text}: {serve}");
    }
    assert!(help(&["consume"]).contains("milliseconds"));
    assert!(help(&["consume"]).contains("[default: start]"));
    assert!(help(&["produce"]).contains("[default: all]"));
    assert!(help(&["topic", "list"]).contains("VARVE_BROKERS"));
    assert!(help(&[]).contains("Exit codes: 0 done"));
}

#[test]
fn a_cluster_is_asked_and_told_in_one_word_each() {
    for line in [
        "varve cluster info -o json -b h:1",
        "varve cluster health",
        "varve cluster partitions --unhealthy t",
    ] {
        assert!(matches!(parse(line).command, Some(Command::Cluster(_))), "{line}");
    }
    let line = "varve cluster transfer-leader t-0 metadata --to 3";
    let Some(Command::Cluster(ClusterCommand::TransferLeader(transfer))) = parse(line).command else {
        panic!("{line}")
    };
    assert_eq!((transfer.partitions.len(), transfer.to), (2, 3));
    assert_eq!(refused("varve cluster transfer-leader t-0"), 2);
    assert_eq!(refused("varve cluster transfer-leader --to 1"), 2);
}

#[test]
fn nodes_come_go_and_are_replaced() {
    for line in [
        "varve cluster add-node 4 --timeout 60",
        "varve cluster remove-node 2",
        "varve cluster replace-node 2 --with 4 -o json",
        "varve cluster drain 1",
    ] {
        assert!(matches!(parse(line).command, Some(Command::Cluster(_))), "{line}");
    }
    assert_eq!(refused("varve cluster replace-node 2"), 2);
    assert_eq!(refused("varve cluster drain 0"), 2);
}
