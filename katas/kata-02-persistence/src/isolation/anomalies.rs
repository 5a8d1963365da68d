//! The ten anomalies as scripts. Every script begins with two accounts: 1 with 10, 2 with 20.
//!
//! The names are those of Adya (1999) and of Berenson et al. (1995); that these ten tell the levels
//! of real servers apart is Kleppmann's finding (Hermitage). Rows are shown as `id:balance`.

use super::script::Evidence::{Committed, Ends, Saw};
use super::script::{Anomaly, Script, t1, t2, t3};

const ALL: &str = "select id, balance from account order by id";
const READ_1: &str = "select balance from account where id = 1";
const READ_2: &str = "select balance from account where id = 2";

/// All ten, from what every level prevents to what only the last one does.
pub const ANOMALIES: &[Anomaly] = &[
    Anomaly {
        id: "dirty-write",
        code: "G0",
        about: "Two transactions write the same rows, and each row keeps the value of another one.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("update account set balance = 11 where id = 1"),
                t2("update account set balance = 12 where id = 1"),
                t1("update account set balance = 21 where id = 2"),
                t1("commit"),
                t2("update account set balance = 22 where id = 2"),
                t2("commit"),
            ],
            happened: &[
                &[Committed(0), Committed(1), Ends("1:11 2:22")],
                &[Committed(0), Committed(1), Ends("1:12 2:21")],
            ],
        }],
    },
    Anomaly {
        id: "aborted-read",
        code: "G1a",
        about: "A transaction reads what another one then takes back.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("update account set balance = 11 where id = 1"),
                t2(READ_1),
                t1("rollback"),
                t2("commit"),
            ],
            happened: &[&[Saw(1, "11"), Committed(1)]],
        }],
    },
    Anomaly {
        id: "intermediate-read",
        code: "G1b",
        about: "A transaction reads what another one is not done with.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("update account set balance = 11 where id = 1"),
                t2(READ_1),
                t1("update account set balance = 12 where id = 1"),
                t1("commit"),
                t2("commit"),
            ],
            happened: &[&[Saw(1, "11"), Committed(1)]],
        }],
    },
    Anomaly {
        id: "circular-information-flow",
        code: "G1c",
        about: "Two transactions each read what the other has written.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("update account set balance = 11 where id = 1"),
                t2("update account set balance = 22 where id = 2"),
                t1(READ_2),
                t2(READ_1),
                t1("commit"),
                t2("commit"),
            ],
            happened: &[&[Saw(2, "22"), Saw(3, "11"), Committed(0), Committed(1)]],
        }],
    },
    Anomaly {
        id: "observed-transaction-vanishes",
        code: "OTV",
        about: "A transaction sees one row as another one left it, and a second row as it was before.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("update account set balance = 11 where id = 1"),
                t1("update account set balance = 21 where id = 2"),
                t2("update account set balance = 12 where id = 1"),
                t1("commit"),
                t3(READ_1),
                t3(READ_2),
                t2("update account set balance = 22 where id = 2"),
                t2("commit"),
                t3(READ_2),
                t3("commit"),
            ],
            // T2 is seen in row 1, and row 2 still shows what T2 writes over.
            happened: &[
                &[Saw(4, "12"), Saw(5, "21"), Committed(1), Committed(2)],
                &[Saw(4, "12"), Saw(8, "21"), Committed(1), Committed(2)],
            ],
        }],
    },
    Anomaly {
        id: "predicate-many-preceders",
        code: "PMP",
        about: "The rows that match a condition change between two looks of one transaction.",
        scripts: &[
            Script {
                way: "by a read",
                steps: &[
                    t1("select id from account where balance = 30"),
                    t2("insert into account values (3, 30)"),
                    t2("commit"),
                    t1("select id from account where balance = 30"),
                    t1("commit"),
                ],
                happened: &[&[Saw(0, "none"), Saw(3, "3"), Committed(0)]],
            },
            Script {
                way: "by a write",
                steps: &[
                    t1("update account set balance = balance + 10"),
                    t2("select id from account where balance = 20"),
                    t2("delete from account where balance = 20"),
                    t1("commit"),
                    t2("commit"),
                ],
                // There is one account with 20 before T1 and one after it, never none. Either T2
                // deleted none, or it deleted another one than it had seen.
                happened: &[
                    &[Saw(2, "0 rows"), Committed(0), Committed(1)],
                    &[Saw(1, "2"), Ends("2:30"), Committed(0), Committed(1)],
                ],
            },
        ],
    },
    Anomaly {
        id: "lost-update",
        code: "P4",
        about: "Two transactions read the same value, and the second to write forgets the first.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1(READ_1),
                t2(READ_1),
                t1("update account set balance = 11 where id = 1"),
                t2("update account set balance = 12 where id = 1"),
                t1("commit"),
                t2("commit"),
            ],
            happened: &[&[Saw(0, "10"), Saw(1, "10"), Committed(0), Committed(1)]],
        }],
    },
    Anomaly {
        id: "read-skew",
        code: "G-single",
        about: "A transaction sees one row from before another one, and a second row from after it.",
        scripts: &[
            Script {
                way: "by a read",
                steps: &[
                    t1(READ_1),
                    t2("update account set balance = 12 where id = 1"),
                    t2("update account set balance = 18 where id = 2"),
                    t2("commit"),
                    t1(READ_2),
                    t1("commit"),
                ],
                happened: &[&[Saw(0, "10"), Saw(4, "18"), Committed(0), Committed(1)]],
            },
            Script {
                way: "by a write",
                steps: &[
                    t1(READ_1),
                    t2("update account set balance = 12 where id = 1"),
                    t2("update account set balance = 18 where id = 2"),
                    t2("commit"),
                    t1("delete from account where balance = 20"),
                    t1("commit"),
                ],
                // T1 read from before T2, and looked for the row to delete after it.
                happened: &[&[Saw(0, "10"), Saw(4, "0 rows"), Committed(0), Committed(1)]],
            },
        ],
    },
    Anomaly {
        id: "write-skew",
        code: "G2-item",
        about: "Two transactions read the same rows, and each changes one that the other relied on.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1(ALL),
                t2(ALL),
                t1("update account set balance = 0 where id = 1"),
                t2("update account set balance = 0 where id = 2"),
                t1("commit"),
                t2("commit"),
            ],
            happened: &[&[
                Saw(0, "1:10 2:20"),
                Saw(1, "1:10 2:20"),
                Committed(0),
                Committed(1),
            ]],
        }],
    },
    Anomaly {
        id: "write-skew-on-predicates",
        code: "G2",
        about: "Two transactions find no row of a kind, and each adds one.",
        scripts: &[Script {
            way: "",
            steps: &[
                t1("select id from account where balance = 30"),
                t2("select id from account where balance = 30"),
                t1("insert into account values (3, 30)"),
                t2("insert into account values (4, 30)"),
                t1("commit"),
                t2("commit"),
            ],
            happened: &[&[Saw(0, "none"), Saw(1, "none"), Committed(0), Committed(1)]],
        }],
    },
];

/// The names, for the command line.
pub const IDS: &[&str] = &[
    "dirty-write",
    "aborted-read",
    "intermediate-read",
    "circular-information-flow",
    "observed-transaction-vanishes",
    "predicate-many-preceders",
    "lost-update",
    "read-skew",
    "write-skew",
    "write-skew-on-predicates",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_can_happen_and_ends_all_its_sessions() {
        let ids: Vec<_> = ANOMALIES.iter().map(|anomaly| anomaly.id).collect();
        assert_eq!(ids, IDS);
        for script in ANOMALIES.iter().flat_map(|anomaly| anomaly.scripts) {
            assert!(!script.happened.is_empty());
            for session in 0..script.sessions() {
                let last = script.steps.iter().rfind(|step| step.by == session);
                assert!(last.is_some_and(|step| ["commit", "rollback"].contains(&step.sql)));
            }
            for evidence in script.happened.iter().copied().flatten() {
                if let Saw(step, _) = evidence {
                    let sql = script.steps[*step].sql;
                    assert!(
                        sql.starts_with("select") || sql.starts_with("delete"),
                        "{sql}"
                    );
                }
            }
        }
    }
}
