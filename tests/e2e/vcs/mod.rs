//! Modules out of git repositories: row by row what the go command makes of a repository by itself (`GOPROXY=direct`) has to be
//! what comes out of modgate's upstreams of type `vcs`, down to the sums.
//!
//! Each row also says what is expected, so that a row which comes to nothing on both sides is noticed. `sides` has the two
//! sides, `rows` the comparison; most other files are tables: what the Go tree tests its own code by (`gotree`, with `script` to
//! make its repositories), revisions and the versions that they become (`revisions`), lists and retractions (`lists`), go.mod
//! files and the places that modules have (`gomods`), zips (`zips`), and repositories that pages or rules name (`roots`).
//!
//! The others are about the way to a repository, with the servers that Debian has (`servers`): by ssh (`ssh`) and through proxies
//! (`sshproxies`), by http (`logins`), by git's daemon (`daemon`), Mercurial and Subversion (`foreign`), and what may go wrong
//! (`faults`, `trouble`). `whole` is a whole build.
//!
//! After a run, `target/tmp/vcs-*.txt` has every row with what both sides said. With `VCS_AGAINST_ITSELF` in the environment,
//! the go command is compared with itself.

mod daemon;
mod faults;
mod foreign;
mod gomods;
mod gotree;
mod lists;
mod logins;
mod revisions;
mod roots;
mod rows;
mod script;
mod servers;
mod sides;
mod ssh;
mod sshproxies;
mod trouble;
mod whole;
mod zips;
