BEGIN TRANSACTION;
CREATE TABLE artifacts (
	run_id VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	kind TEXT NOT NULL, 
	path TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	sha256 TEXT NOT NULL, 
	PRIMARY KEY (run_id, name), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "artifacts" VALUES('a','model.bin','model','runs/a/model.bin',3,'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
CREATE TABLE checkpoints (
	run_id VARCHAR(255) NOT NULL, 
	step BIGINT NOT NULL, 
	path TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	is_best BOOLEAN NOT NULL, 
	status TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	metrics TEXT NOT NULL, 
	PRIMARY KEY (run_id, step), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "checkpoints" VALUES('a',2,'ckpt/2',1000,1,'deleted',1790000000.25,'{"loss": NaN}');
INSERT INTO "checkpoints" VALUES('a',3,'ckpt/3',1000,0,'kept',1790000000.25,'{}');
CREATE TABLE events (
	id INTEGER NOT NULL, 
	run_id VARCHAR(255) NOT NULL, 
	time DOUBLE NOT NULL, 
	step BIGINT, 
	kind TEXT NOT NULL, 
	message TEXT NOT NULL, 
	details TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
INSERT INTO "events" VALUES(1,'a',1790000000.25,40,'spike','loss 9.1','{"batch": [1, 2]}');
INSERT INTO "events" VALUES(2,'a',1790000000.25,NULL,'started','line 1
line 2','{}');
CREATE TABLE metrics (
	run_id VARCHAR(255) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	step BIGINT NOT NULL, 
	value DOUBLE, 
	PRIMARY KEY (run_id, name, step), 
	FOREIGN KEY(run_id) REFERENCES runs (run_id)
)
 WITHOUT ROWID
;
INSERT INTO "metrics" VALUES('a','loss',1,NULL);
INSERT INTO "metrics" VALUES('a','loss',2,9e999);
INSERT INTO "metrics" VALUES('a','loss',3,-9e999);
INSERT INTO "metrics" VALUES('a','loss',9007199254740992,4.94065645841247e-324);
INSERT INTO "metrics" VALUES('a','lr',1,0.1);
INSERT INTO "metrics" VALUES('b''; DROP TABLE runs; --','a"b`c',1,0.5);
CREATE TABLE runs (
	run_id VARCHAR(255) NOT NULL, 
	number INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	status TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	updated DOUBLE NOT NULL, 
	finished DOUBLE, 
	task TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	data_fingerprint TEXT NOT NULL, 
	code_version TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	run_dir TEXT NOT NULL, 
	config TEXT NOT NULL, 
	environment TEXT NOT NULL, 
	results TEXT NOT NULL, 
	PRIMARY KEY (run_id)
);
INSERT INTO "runs" VALUES('a',1,'first try','completed',1790000000.25,1790000000.25,1790000000.25,'{"kind": "causal_lm"}',7,'d41d8cd98f00','0.1.0','1d1cb039f62e','runs/a','{"learning_rate": 0.0003, "tokenizer": "byte"}','{"packages": {"torch": "2.13.0"}}','{"final_loss": 1.5, "worst": NaN}');
INSERT INTO "runs" VALUES('b''; DROP TABLE runs; --',2,'<script>💩','paused',1790000000.25,1790000000.25,NULL,'{"kind": "causal_lm"}',8,'d41d8cd98f00','0.1.0','8eebacf14e2e','runs/a','{"learning_rate": 0.0003, "tokenizer": "byte"}','{"packages": {"torch": "2.13.0"}}','{}');
INSERT INTO "runs" VALUES('c',3,'first try','running',1790000000.25,1790000000.25,NULL,'{"kind": "causal_lm"}',7,'d41d8cd98f00','0.1.0','1d1cb039f62e','runs/a','{"learning_rate": 0.0003, "tokenizer": "byte"}','{"packages": {"torch": "2.13.0"}}','{}');
CREATE TABLE trainbook_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "trainbook_schema" VALUES(1);
CREATE INDEX ix_events_run_id ON events (run_id);
COMMIT;
