//! Modules out of git repositories: row by row what the go command makes of a repository by itself (`GOPROXY=direct`) has to be
//! what comes out of modgate's upstreams of type `vcs`, down to the sums.
//!
//! Each row also says what is expected, so that a row which comes to nothing on both sides is noticed. `sides` has the two
//! sides, `rows` the comparison; the other files are tables: what the Go tree tests its own code by (`gotree`), revisions and
//! the versions that they become (`revisions`), lists and retractions (`lists`), go.mod files (`gomods`), zips (`zips`), and
//! where in a repository a module is (`places`).
//!
//! After a run, `target/tmp/vcs-*.txt` has every row with what both sides said. With `VCS_AGAINST_ITSELF` in the environment,
//! the go command is compared with itself.

mod gomods;
mod gotree;
mod lists;
mod revisions;
mod roots;
mod rows;
mod script;
mod sides;
mod zips;
