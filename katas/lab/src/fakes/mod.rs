//! Programmable fakes of the outside world.
