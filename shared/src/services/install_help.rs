//! The fourth way: saying which package to install on this very system.

use std::path::Path;

/// What to do without PostgreSQL; `tried` says why it could not be downloaded.
pub(super) fn postgres(tried: &str) -> String {
    let install = System::this().postgres();
    format!(
        "no PostgreSQL server on this machine, and no DATABASE_URL\n\
         Install one:     {install}\n\
         or start one:    docker compose up -d postgres\n\
         \x20                export DATABASE_URL=postgres://kata:kata@127.0.0.1:5432/kata\n\
         Download tried:  {tried}"
    )
}

/// What to do without Redis.
pub(super) fn redis() -> String {
    let install = System::this().redis();
    format!(
        "no Redis server on this machine, and no REDIS_URL\n\
         Install one:     {install}\n\
         or start one:    docker compose up -d redis\n\
         \x20                export REDIS_URL=redis://127.0.0.1:6379"
    )
}

/// What to do without MariaDB.
pub(super) fn mariadb() -> String {
    let install = System::this().mariadb();
    format!("no MariaDB server on this machine\nInstall one:     {install}")
}

/// Systems that differ in how a package is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Debian,
    Fedora,
    Arch,
    Alpine,
    Suse,
    MacOs,
    Other,
}

impl System {
    fn this() -> Self {
        if cfg!(target_os = "macos") {
            return Self::MacOs;
        }
        let read = |path| std::fs::read_to_string(Path::new(path)).ok();
        let text = read("/etc/os-release").or_else(|| read("/usr/lib/os-release"));
        Self::from_os_release(&text.unwrap_or_default())
    }

    /// `ID` names the system, `ID_LIKE` its relatives, nearest first.
    fn from_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let lines = text.lines();
            let found = lines
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key);
            found.map_or("", |(_, value)| value.trim_matches(['"', '\'']))
        };
        let mut names = value("ID")
            .split_whitespace()
            .chain(value("ID_LIKE").split_whitespace());
        let system = names.find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Debian),
            "fedora" | "rhel" | "centos" => Some(Self::Fedora),
            "arch" => Some(Self::Arch),
            "alpine" => Some(Self::Alpine),
            "suse" | "opensuse" => Some(Self::Suse),
            _ => None,
        });
        system.unwrap_or(Self::Other)
    }

    fn postgres(self) -> &'static str {
        match self {
            Self::Debian => "sudo apt-get install postgresql",
            Self::Fedora => "sudo dnf install postgresql-server",
            Self::Arch => "sudo pacman -S postgresql",
            Self::Alpine => "sudo apk add postgresql",
            Self::Suse => "sudo zypper install postgresql-server",
            Self::MacOs => "brew install postgresql@17",
            Self::Other => "your system's package of the PostgreSQL server, 14 or newer",
        }
    }

    fn redis(self) -> &'static str {
        match self {
            Self::Debian => "sudo apt-get install redis-server",
            Self::Fedora => "sudo dnf install valkey",
            Self::Arch => "sudo pacman -S valkey",
            Self::Alpine => "sudo apk add redis",
            Self::Suse => "sudo zypper install redis",
            Self::MacOs => "brew install redis",
            Self::Other => "your system's package of Redis (7 or newer) or Valkey",
        }
    }

    fn mariadb(self) -> &'static str {
        match self {
            Self::Debian => "sudo apt-get install mariadb-server",
            Self::Fedora => "sudo dnf install mariadb-server",
            Self::Arch => "sudo pacman -S mariadb",
            Self::Alpine => "sudo apk add mariadb",
            Self::Suse => "sudo zypper install mariadb",
            Self::MacOs => "brew install mariadb",
            Self::Other => "your system's package of the MariaDB server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::System;

    #[test]
    fn a_system_is_known_by_its_name_or_by_its_relatives() {
        let cases = [
            ("NAME=\"Debian GNU/Linux\"\nID=debian\n", System::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", System::Debian),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n",
                System::Fedora,
            ),
            ("ID=fedora\n", System::Fedora),
            ("ID=manjaro\nID_LIKE=arch\n", System::Arch),
            ("ID=alpine\n", System::Alpine),
            (
                "ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n",
                System::Suse,
            ),
            ("ID=plan9\n", System::Other),
            ("", System::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(System::from_os_release(text), expected, "{text}");
        }
    }
}
