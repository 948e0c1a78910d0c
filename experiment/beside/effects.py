"""The effects of what runs beside the orders: a row for each, which no constraint keeps single."""

from __future__ import annotations

from sqlalchemy import column, insert, table

CREATE_EFFECTS = """
create table if not exists beside_effect (
  position bigint generated always as identity, subscriber text not null, key text not null, value bigint not null)
"""
INSERT_EFFECT = insert(table("beside_effect", column("subscriber"), column("key"), column("value")))
