EXCEPTIONS=[]
FILES={}
NOT_YET=["docs/results/deployed.md","docs/results/hippocampus.md","docs/results/index.md","docs/results/regimes.md","docs/results/shift.md","docs/results/start.md"]
