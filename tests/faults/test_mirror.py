import json
def test_smoke(make_trainer, data, tmp_path):
    r = make_trainer(run_name="r", save_every=3, eval_every=4, save_minutes=0, mirror_dir=str(tmp_path/"m"), database="auto").train(data.train, data.val)
    print(r); print(r.events)
    import subprocess
    print(subprocess.run(["find", str(tmp_path/"m")], capture_output=True, text=True).stdout)
    print(open(tmp_path/"runs/r/MIRROR.json").read())
    import shutil
    shutil.rmtree(tmp_path/"runs")
    r2 = make_trainer(run_name="r", save_every=3, eval_every=4, save_minutes=0, mirror_dir=str(tmp_path/"m"), database="auto").train(data.train, data.val)
    print(r2, r2.events, r2.resumed_from)
    assert 0
