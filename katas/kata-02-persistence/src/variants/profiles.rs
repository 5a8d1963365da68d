//! Statements about profiles. The version of a row is its entity tag: a number that every write
//! raises, so that it never names two contents.

use serde_json::{Value, json};
use shared::http::Problem;
use sqlx::{PgConnection, types::Json};

use crate::{
    contract::{self, Data},
    variants::serving::Service,
};

/// A version as a strong entity tag.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The version that an entity tag of ours names. A weak tag is none, nor is one that we would write
/// differently.
pub fn version(tag: &str) -> Option<i64> {
    let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    (etag(version) == tag).then_some(version)
}

/// A profile with its tag.
pub async fn find(service: &Service, id: &str) -> Result<Option<(Data, String)>, sqlx::Error> {
    let row: Option<(Json<Data>, i64)> =
        sqlx::query_as("select data, version from profiles where profile_id = $1")
            .bind(id)
            .fetch_optional(&service.db)
            .await?;
    Ok(row.map(|(Json(data), version)| (data, etag(version))))
}

/// Writes a profile that is not there yet; `None` if it is.
pub async fn create(
    service: &Service,
    id: &str,
    data: &Data,
) -> Result<Option<String>, sqlx::Error> {
    let sql = "insert into profiles (profile_id, data) values ($1, $2)
         on conflict do nothing returning version";
    let written = sqlx::query_scalar(sql)
        .bind(id)
        .bind(Json(data))
        .fetch_optional(&service.db)
        .await?;
    Ok(written.map(etag))
}

/// Locks a profile and reads it.
pub async fn lock(db: &mut PgConnection, id: &str) -> Result<Option<(Data, i64)>, sqlx::Error> {
    read(
        db,
        "select data, version from profiles where profile_id = $1 for update",
        id,
    )
    .await
}

/// Reads a profile without a lock.
pub async fn look(db: &mut PgConnection, id: &str) -> Result<Option<(Data, i64)>, sqlx::Error> {
    read(
        db,
        "select data, version from profiles where profile_id = $1",
        id,
    )
    .await
}

async fn read(
    db: &mut PgConnection,
    sql: &'static str,
    id: &str,
) -> Result<Option<(Data, i64)>, sqlx::Error> {
    let row: Option<(Json<Data>, i64)> = sqlx::query_as(sql).bind(id).fetch_optional(db).await?;
    Ok(row.map(|(Json(data), version)| (data, version)))
}

/// Writes new content whatever is there, and raises the version.
pub async fn write(db: &mut PgConnection, id: &str, data: &Data) -> Result<i64, sqlx::Error> {
    let sql = "update profiles set data = $2, version = version + 1
         where profile_id = $1 returning version";
    sqlx::query_scalar(sql)
        .bind(id)
        .bind(Json(data))
        .fetch_one(db)
        .await
}

/// Adds one to a member; a missing one is 0.
///
/// # Errors
/// If it is there and is no whole number.
pub fn add_one(data: &mut Data, field: &str) -> Result<(), Problem> {
    let next = match data.get(field) {
        None => Some(1),
        Some(value) => value.as_i64().and_then(|number| number.checked_add(1)),
    };
    let next: Value = json!(next.ok_or_else(contract::not_a_number)?);
    data.insert(field.to_owned(), next);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_tags_name_a_version() {
        assert_eq!(version("\"7\""), Some(7));
        for other in ["7", "\"07\"", "W/\"7\"", "\"+7\"", "\"\"", "\"", "*"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn a_missing_member_is_zero_and_a_text_is_no_number() {
        let mut data = Data::new();
        assert!(add_one(&mut data, "visits").is_ok());
        assert!(add_one(&mut data, "visits").is_ok());
        assert_eq!(data["visits"], json!(2));
        data.insert("name".to_owned(), json!("Ada"));
        assert!(add_one(&mut data, "name").is_err());
    }
}
