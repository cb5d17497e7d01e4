"""The first catalog."""

import sqlalchemy as sa
from alembic import op

# Numbered one up from the last: the program tells older from newer by it (tables.HEAD_REVISION).
revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "u2net_plans",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_u2net_plans"),
    )
    op.create_table(
        "u2net_runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=32), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("fold", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("directory", sa.String(), nullable=False),
        sa.Column("mlflow_run_id", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("ended_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_u2net_runs"),
    )
    op.create_index("ix_u2net_runs_started_at", "u2net_runs", ["started_at"])
    op.create_index("ix_u2net_runs_status", "u2net_runs", ["status"])

    op.create_table(
        "u2net_specs",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_u2net_specs"),
    )
    op.create_table(
        "u2net_backbones",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("architecture", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["u2net_runs.id"], name="fk_u2net_backbones_run_id"),
        sa.PrimaryKeyConstraint("digest", name="pk_u2net_backbones"),
    )
    op.create_index("ix_u2net_backbones_run_id", "u2net_backbones", ["run_id"])

    op.create_table(
        "u2net_domains",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("plugin_digest", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("data_dir", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["spec_digest"], ["u2net_specs.digest"], name="fk_u2net_domains_spec_digest"
        ),
        sa.PrimaryKeyConstraint("name", name="pk_u2net_domains"),
    )
    op.create_table(
        "u2net_run_domains",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("domain", sa.String(length=63), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["domain"], ["u2net_domains.name"], name="fk_u2net_run_domains_domain"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["u2net_runs.id"], name="fk_u2net_run_domains_run_id"),
        sa.PrimaryKeyConstraint("run_id", "domain", name="pk_u2net_run_domains"),
    )
    op.create_index("ix_u2net_run_domains_domain", "u2net_run_domains", ["domain"])

    op.create_table(
        "u2net_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("domain", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("backbone_digest", sa.String(length=64), nullable=False),
        sa.Column("domain_digest", sa.String(length=64), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("plugin_digest", sa.String(length=64), nullable=False),
        sa.Column("plan_digest", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("architecture", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["backbone_digest"],
            ["u2net_backbones.digest"],
            name="fk_u2net_versions_backbone_digest",
        ),
        sa.ForeignKeyConstraint(
            ["domain"], ["u2net_domains.name"], name="fk_u2net_versions_domain"
        ),
        sa.ForeignKeyConstraint(
            ["plan_digest"], ["u2net_plans.digest"], name="fk_u2net_versions_plan_digest"
        ),
        sa.ForeignKeyConstraint(["run_id"], ["u2net_runs.id"], name="fk_u2net_versions_run_id"),
        sa.ForeignKeyConstraint(
            ["spec_digest"], ["u2net_specs.digest"], name="fk_u2net_versions_spec_digest"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_u2net_versions"),
        sa.UniqueConstraint("domain", "number", name="uq_u2net_versions_domain_number"),
    )
    op.create_index("ix_u2net_versions_backbone_digest", "u2net_versions", ["backbone_digest"])
    op.create_index("ix_u2net_versions_created_at", "u2net_versions", ["created_at"])
    op.create_index(
        "ix_u2net_versions_domain_created_at", "u2net_versions", ["domain", "created_at"]
    )
    op.create_index("ix_u2net_versions_domain_digest", "u2net_versions", ["domain_digest"])
    op.create_index("ix_u2net_versions_plan_digest", "u2net_versions", ["plan_digest"])
    op.create_index("ix_u2net_versions_run_id", "u2net_versions", ["run_id"])
    op.create_index("ix_u2net_versions_spec_digest", "u2net_versions", ["spec_digest"])

    op.create_table(
        "u2net_run_bases",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["u2net_runs.id"], name="fk_u2net_run_bases_run_id"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["u2net_versions.id"], name="fk_u2net_run_bases_version_id"
        ),
        sa.PrimaryKeyConstraint("run_id", name="pk_u2net_run_bases"),
    )
    op.create_index("ix_u2net_run_bases_version_id", "u2net_run_bases", ["version_id"])


def downgrade() -> None:
    op.drop_table("u2net_run_bases")
    op.drop_table("u2net_versions")
    op.drop_table("u2net_run_domains")
    op.drop_table("u2net_domains")
    op.drop_table("u2net_backbones")
    op.drop_table("u2net_specs")
    op.drop_table("u2net_runs")
    op.drop_table("u2net_plans")
