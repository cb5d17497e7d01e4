BEGIN TRANSACTION;
CREATE TABLE u2net_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT u2net_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "u2net_alembic_version" VALUES('0006');
CREATE TABLE u2net_backbones (
	digest VARCHAR(64) NOT NULL, 
	architecture JSON NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_u2net_backbones PRIMARY KEY (digest), 
	CONSTRAINT fk_u2net_backbones_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id)
);
INSERT INTO "u2net_backbones" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','{"widths": [16, 32]}','run-1','2026-11-29T11:09:38.775802+00:00');
CREATE TABLE u2net_contributions (
	run_id VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	site VARCHAR(63) NOT NULL, 
	accepted BOOLEAN NOT NULL, 
	reason VARCHAR NOT NULL, 
	examples INTEGER NOT NULL, 
	steps INTEGER NOT NULL, 
	norm DOUBLE, 
	bytes_down BIGINT NOT NULL, 
	bytes_up BIGINT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_u2net_contributions PRIMARY KEY (run_id, number, attempt, site), 
	CONSTRAINT fk_u2net_contributions_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id)
);
INSERT INTO "u2net_contributions" VALUES('run-1',1,1,'north',1,'',8,0,0.5,0,1099511627776,0.0);
INSERT INTO "u2net_contributions" VALUES('run-1',1,1,'south',0,'NotFinite',0,0,NULL,0,0,0.0);
CREATE TABLE "u2net_deployments" (
	id INTEGER NOT NULL, 
	domain VARCHAR(63) NOT NULL, 
	alias VARCHAR(63) NOT NULL, 
	site VARCHAR(63) NOT NULL, 
	version_id INTEGER, 
	previous_id INTEGER, 
	restores_id INTEGER, 
	action VARCHAR(16) NOT NULL, 
	forced BOOLEAN NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	reason VARCHAR NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_u2net_deployments PRIMARY KEY (id), 
	CONSTRAINT fk_u2net_deployments_version_id FOREIGN KEY(version_id) REFERENCES u2net_versions (id), 
	CONSTRAINT fk_u2net_deployments_domain FOREIGN KEY(domain) REFERENCES u2net_domains (name), 
	CONSTRAINT fk_u2net_deployments_previous_id FOREIGN KEY(previous_id) REFERENCES u2net_versions (id), 
	CONSTRAINT fk_u2net_deployments_restores_id FOREIGN KEY(restores_id) REFERENCES u2net_deployments (id)
);
INSERT INTO "u2net_deployments" VALUES(1,'heart','champion','',1,NULL,NULL,'deploy',1,'ann','trial','2026-11-29T11:09:38.867784+00:00');
INSERT INTO "u2net_deployments" VALUES(2,'heart','champion','north',1,NULL,NULL,'deploy',1,'ann','trial','2026-11-29T11:09:38.878706+00:00');
INSERT INTO "u2net_deployments" VALUES(3,'heart','champion','',3,1,NULL,'deploy',1,'ann','','2026-11-29T11:09:38.923073+00:00');
INSERT INTO "u2net_deployments" VALUES(4,'heart','champion','',1,3,1,'rollback',1,'bob','worse','2026-11-29T11:09:38.988776+00:00');
INSERT INTO "u2net_deployments" VALUES(5,'heart','champion','north',NULL,1,NULL,'withdraw',0,'ann','','2026-11-29T11:09:39.006649+00:00');
CREATE TABLE u2net_domains (
	name VARCHAR(63) NOT NULL, 
	spec_digest VARCHAR(64) NOT NULL, 
	plugin_digest VARCHAR(64) NOT NULL, 
	source VARCHAR NOT NULL, 
	data_dir VARCHAR, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_u2net_domains PRIMARY KEY (name), 
	CONSTRAINT fk_u2net_domains_spec_digest FOREIGN KEY(spec_digest) REFERENCES u2net_specs (digest)
);
INSERT INTO "u2net_domains" VALUES('heart','78348f2edc16f7dd12040ac252c71f11ba4f3fae7085409961abaa3d65600163','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bundled','/data/heart','2026-11-29T11:09:38.665756+00:00');
INSERT INTO "u2net_domains" VALUES('spleen','aa760aaefba618b264aaf9b195b0fafee45cc4f3f7037b25a3acdba51c796dcf','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bundled','/data/spleen','2026-11-29T11:09:38.674027+00:00');
CREATE TABLE u2net_plans (
	digest VARCHAR(64) NOT NULL, 
	content JSON NOT NULL, 
	CONSTRAINT pk_u2net_plans PRIMARY KEY (digest)
);
INSERT INTO "u2net_plans" VALUES('386996f19d66dcb7fb7c1191c7696c1819a122ec88b6b77fac8c930f6f73a4ed','{"patch_zyx": [80, 192, 128]}');
CREATE TABLE u2net_rounds (
	run_id VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	backbone_digest VARCHAR(64), 
	seconds DOUBLE NOT NULL, 
	created_at VARCHAR(32) NOT NULL, 
	CONSTRAINT pk_u2net_rounds PRIMARY KEY (run_id, number, attempt), 
	CONSTRAINT fk_u2net_rounds_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id)
);
INSERT INTO "u2net_rounds" VALUES('run-1',1,1,'completed','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1.5,'2026-11-29T11:09:39.024002+00:00');
CREATE TABLE u2net_run_bases (
	run_id VARCHAR(64) NOT NULL, 
	version_id INTEGER NOT NULL, 
	CONSTRAINT pk_u2net_run_bases PRIMARY KEY (run_id), 
	CONSTRAINT fk_u2net_run_bases_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id), 
	CONSTRAINT fk_u2net_run_bases_version_id FOREIGN KEY(version_id) REFERENCES u2net_versions (id)
);
INSERT INTO "u2net_run_bases" VALUES('run-2',1);
CREATE TABLE "u2net_run_domains" (
	run_id VARCHAR(64) NOT NULL, 
	domain VARCHAR(63) NOT NULL, 
	position INTEGER NOT NULL, 
	fingerprint JSON, 
	data_digest VARCHAR(64), 
	start_id INTEGER, 
	CONSTRAINT pk_u2net_run_domains PRIMARY KEY (run_id, domain), 
	CONSTRAINT fk_u2net_run_domains_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id), 
	CONSTRAINT fk_u2net_run_domains_domain FOREIGN KEY(domain) REFERENCES u2net_domains (name), 
	CONSTRAINT fk_u2net_run_domains_start_id FOREIGN KEY(start_id) REFERENCES u2net_versions (id)
);
INSERT INTO "u2net_run_domains" VALUES('run-1','heart',0,'{"data_digest": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',NULL);
INSERT INTO "u2net_run_domains" VALUES('run-2','spleen',0,'{"data_digest": "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"}','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1);
CREATE TABLE u2net_runs (
	id VARCHAR(64) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	mode VARCHAR(32) NOT NULL, 
	recipe JSON NOT NULL, 
	seed INTEGER NOT NULL, 
	fold INTEGER NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	directory VARCHAR NOT NULL, 
	mlflow_run_id VARCHAR(64), 
	status VARCHAR(16) NOT NULL, 
	step INTEGER NOT NULL, 
	started_at VARCHAR(32) NOT NULL, 
	ended_at VARCHAR(32), 
	CONSTRAINT pk_u2net_runs PRIMARY KEY (id)
);
INSERT INTO "u2net_runs" VALUES('run-1','train','universal','{"steps": 100}',1,0,'cpu','/runs/run-1',NULL,'running',0,'2026-01-01T00:00:00.000000+00:00',NULL);
INSERT INTO "u2net_runs" VALUES('run-2','adapt','universal','{"steps": 100}',2,0,'cpu','/runs/run-2',NULL,'running',0,'2026-01-02T00:00:00.000000+00:00',NULL);
CREATE TABLE u2net_specs (
	digest VARCHAR(64) NOT NULL, 
	content JSON NOT NULL, 
	CONSTRAINT pk_u2net_specs PRIMARY KEY (digest)
);
INSERT INTO "u2net_specs" VALUES('78348f2edc16f7dd12040ac252c71f11ba4f3fae7085409961abaa3d65600163','{"name": "heart"}');
INSERT INTO "u2net_specs" VALUES('aa760aaefba618b264aaf9b195b0fafee45cc4f3f7037b25a3acdba51c796dcf','{"name": "spleen"}');
CREATE TABLE u2net_versions (
	id INTEGER NOT NULL, 
	domain VARCHAR(63) NOT NULL, 
	number INTEGER NOT NULL, 
	backbone_digest VARCHAR(64) NOT NULL, 
	domain_digest VARCHAR(64) NOT NULL, 
	spec_digest VARCHAR(64) NOT NULL, 
	plugin_digest VARCHAR(64) NOT NULL, 
	plan_digest VARCHAR(64) NOT NULL, 
	run_id VARCHAR(64) NOT NULL, 
	architecture JSON NOT NULL, 
	metrics JSON NOT NULL, 
	created_at VARCHAR(32) NOT NULL, probe JSON, 
	CONSTRAINT pk_u2net_versions PRIMARY KEY (id), 
	CONSTRAINT fk_u2net_versions_backbone_digest FOREIGN KEY(backbone_digest) REFERENCES u2net_backbones (digest), 
	CONSTRAINT fk_u2net_versions_domain FOREIGN KEY(domain) REFERENCES u2net_domains (name), 
	CONSTRAINT fk_u2net_versions_plan_digest FOREIGN KEY(plan_digest) REFERENCES u2net_plans (digest), 
	CONSTRAINT fk_u2net_versions_run_id FOREIGN KEY(run_id) REFERENCES u2net_runs (id), 
	CONSTRAINT fk_u2net_versions_spec_digest FOREIGN KEY(spec_digest) REFERENCES u2net_specs (digest), 
	CONSTRAINT uq_u2net_versions_domain_number UNIQUE (domain, number)
);
INSERT INTO "u2net_versions" VALUES(1,'heart',1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','0000000000000000000000000000000000000000000000000000000000000001','78348f2edc16f7dd12040ac252c71f11ba4f3fae7085409961abaa3d65600163','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','386996f19d66dcb7fb7c1191c7696c1819a122ec88b6b77fac8c930f6f73a4ed','run-1','{"classes": 2}','{"dice": 0.9}','2026-11-29T11:09:38.777478+00:00',NULL);
INSERT INTO "u2net_versions" VALUES(2,'spleen',1,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','0000000000000000000000000000000000000000000000000000000000000002','aa760aaefba618b264aaf9b195b0fafee45cc4f3f7037b25a3acdba51c796dcf','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','386996f19d66dcb7fb7c1191c7696c1819a122ec88b6b77fac8c930f6f73a4ed','run-2','{"classes": 2}','{"dice": 0.9}','2026-11-29T11:09:38.823731+00:00',NULL);
INSERT INTO "u2net_versions" VALUES(3,'heart',2,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','0000000000000000000000000000000000000000000000000000000000000001','78348f2edc16f7dd12040ac252c71f11ba4f3fae7085409961abaa3d65600163','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','386996f19d66dcb7fb7c1191c7696c1819a122ec88b6b77fac8c930f6f73a4ed','run-1','{"classes": 2}','{"dice": 0.9}','2026-11-29T11:09:38.908093+00:00',NULL);
CREATE INDEX ix_u2net_runs_started_at ON u2net_runs (started_at);
CREATE INDEX ix_u2net_runs_status ON u2net_runs (status);
CREATE INDEX ix_u2net_backbones_run_id ON u2net_backbones (run_id);
CREATE INDEX ix_u2net_versions_backbone_digest ON u2net_versions (backbone_digest);
CREATE INDEX ix_u2net_versions_created_at ON u2net_versions (created_at);
CREATE INDEX ix_u2net_versions_domain_created_at ON u2net_versions (domain, created_at);
CREATE INDEX ix_u2net_versions_domain_digest ON u2net_versions (domain_digest);
CREATE INDEX ix_u2net_versions_plan_digest ON u2net_versions (plan_digest);
CREATE INDEX ix_u2net_versions_run_id ON u2net_versions (run_id);
CREATE INDEX ix_u2net_versions_spec_digest ON u2net_versions (spec_digest);
CREATE INDEX ix_u2net_run_bases_version_id ON u2net_run_bases (version_id);
CREATE INDEX ix_u2net_contributions_site ON u2net_contributions (site);
CREATE INDEX ix_u2net_run_domains_domain ON u2net_run_domains (domain);
CREATE INDEX ix_u2net_run_domains_data_digest ON u2net_run_domains (data_digest);
CREATE INDEX ix_u2net_run_domains_start_id ON u2net_run_domains (start_id);
CREATE INDEX ix_u2net_deployments_version_id ON u2net_deployments (version_id);
CREATE INDEX ix_u2net_deployments_domain_alias_site_id ON u2net_deployments (domain, alias, site, id);
COMMIT;
